"""`pdr predict`: one forecast, or with `--every-init` a hindcast; prints one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf
from pdr_cli.data.series import MEMBERS, mean_of
from pdr_cli.inference import film_request, forecast, hindcast
from pdr_cli.inference.film_request import Answer
from pdr_cli.inference.forecast import Forecast
from pdr_cli.inference.hindcast import Hindcast
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.request import ANIMATED, Request
from pdr_cli.system import locks, processes


def run(request: Request) -> None:
    """Forecast; see `pdr predict --help` for the options."""
    began = time.monotonic()
    if film_request.is_for(request):
        film_request.check(request)
        found = _unless_answered(request, film_request.is_up_to_date, _film)
    else:
        request.check()
        one = not request.every_init
        found = _unless_answered(request, forecast.is_up_to_date, _forecast) if one else _hindcast(request)
    if found:
        print(f"{request.output}  {found}  {time.monotonic() - began:.1f} s")


def _unless_answered(
    request: Request, is_answered: Callable[[Request], bool], make: Callable[[Request], str]
) -> str | None:
    """What `make` says of the outputs that it writes, one process at a time; None if they are up to date."""
    with locks.locked(request.output):
        if request.skip_existing and is_answered(request):
            print(f"{request.output}  up to date")
            return None
        return make(request)


def _forecast(request: Request) -> str:
    """Make, write and draw one forecast, and describe it."""
    made = forecast.answer(request, _animate)
    if request.preview:
        _draw(request.preview, made)
    times = made.frames.time.values
    valid = f"{time_axis.label(times[0])} to {time_axis.label(times[-1])}"
    members = f"  {made.frames.sizes['realization']} members" if "realization" in made.frames.dims else ""
    labels = ", ".join(one.model.label for one in (made, *made.others))
    uncertain = members + _intervals(made.intake)
    drawn = "  drawn" if request.draws(made.model) else f"  {made.placed.words}" if made.placed else ""
    return f"init {time_axis.label(cf.init_of(made.frames))}  valid {valid}{uncertain}{drawn}  model {labels}"


def _film(request: Request) -> str:
    """Make, write and draw the film of a picture, and describe it."""
    made = film_request.answer(request)
    if request.preview:
        _preview(request.preview, made)
    frames, asked = made.film.frames, request.filming
    size = f"{frames.sizes['time']} frames of {frames.sizes['y']} x {frames.sizes['x']}"
    view = f" seen from {asked.view}" if asked.view else ""
    members = f"  {frames.sizes[MEMBERS]} members" if MEMBERS in frames.dims else ""
    return f"{size} along {asked.camera}{view}{members}  model {made.model.label}"


def _hindcast(request: Request) -> str | None:
    """Make and write a hindcast, and describe it; None if the output is up to date, and in all processes but the first."""
    with processes.joined() as ranks, hindcast.locked(request.output, ranks):
        if request.skip_existing and hindcast.is_up_to_date(request, ranks):
            if ranks.first:
                print(f"{request.output}  up to date")
            return None
        made = hindcast.answer(request, ranks)
        return _summary(made) if ranks.first else None


def _summary(made: Hindcast) -> str:
    times, steps = made.plan.times, made.plan.steps
    inits = f"{time_axis.label(times[0])} to {time_axis.label(times[-1])}"
    members = f" and {made.example.sizes['realization']} members" if "realization" in made.example.dims else ""
    labels = ", ".join(one.model.label for one in (made, *made.others))
    uncertain = members + _intervals(made.intake)
    return f"init {inits}  {len(times)} forecasts of {steps} steps{uncertain}  model {labels}"


def _intervals(intake: Intake) -> str:
    shares = ", ".join(f"{100 * share:g} %" for share in intake.intervals.shares)
    adaptive = "adaptive " if intake.intervals.adaptive else ""
    return f"  {adaptive}intervals of {shares}" if shares else ""


def _draw(path: Path, made: Forecast) -> None:
    """Draw a forecast after the observed window, beside the truth where the input goes on: PNG, or an animation."""
    from pdr_cli.drawing import animation, pictures

    draw = animation.write if path.suffix.lower() in ANIMATED else pictures.forecast
    draw(path, made.observed(), made.central, made.truth(), model=made.model.name)


def _animate(made: Forecast, path: Path, attributes: Mapping[str, str]) -> None:
    """Draw a forecast as the output of a command: an animation without the truth, on which a forecast does not depend."""
    from pdr_cli.drawing import animation

    animation.write(path, made.observed(), made.central, model=made.model.name, provenance=attributes)


def _preview(path: Path, made: Answer) -> None:
    """Draw a film: a sheet of its frames and their depth, or an animation."""
    from pdr_cli.drawing import animation, films

    film = made.film
    if path.suffix.lower() not in ANIMATED:
        films.sheet(path, film.picture, film.frames, film.depth, film.ways, model=made.model.name)
        return
    later = mean_of(film.frames).isel(time=film.frames.time.values > 0)
    animation.write(path, film.picture, later, model=made.model.name)
