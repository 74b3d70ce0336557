"""Options that commands take together, and what a command gets of them in one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from pdr_cli.options import (
    COMPUTING,
    COVARIATES,
    FILMING,
    FRAMES,
    LOGGING,
    MEMBERS,
    MENDING,
    PLACES,
    READING,
    SHOT,
    TIMING,
)
from pdr_cli.system.imports import uncollected

Command = Callable[..., None]


def logged(command: Command) -> Command:
    """A command with the logging options -q, -v and --log-json, which are applied before it runs."""

    @functools.wraps(command)
    def run(*, quiet: bool = False, verbose: bool = False, log_json: bool = False, **options: Any) -> None:
        from pdr_cli.system import logs

        logs.setup(quiet, verbose, log_json)
        command(**options)

    return _with_options(run, command, LOGGING, False)


def _bundled(options: dict[str, Any], name: str, make: Callable[[dict[str, Any]], Any]) -> Callable[[Command], Command]:
    """A decorator: a command with further options, which it gets as one parameter `name` that `make` makes of their values."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {key: given.pop(key) for key in options}
            with uncollected():  # imports most of what a command needs
                made = make(chosen)
            command(**given, **{name: made})

        return _with_options(run, command, options, None, name)

    return decorate


def _drawing(chosen: dict[str, Any]) -> Any:
    """The `Drawing` of the options `MEMBERS`."""
    from pdr_cli.inference.members import Drawing

    return Drawing.parse(chosen["members"], chosen["seed"] or 0)


def _frames(chosen: dict[str, Any]) -> dict[str, Any]:
    """The `drawing`, `precision`, `intervals`, `between`, `filming` and `finer` of a request, of the options `FRAMES`."""
    from pdr_cli.inference.between import Between
    from pdr_cli.inference.filming import Filming
    from pdr_cli.inference.finer import Finer
    from pdr_cli.inference.intervals import Intervals

    made = {"drawing": _drawing(chosen), "intervals": Intervals.parse(chosen["interval"], bool(chosen["adaptive"]))}
    made |= {"between": Between.parse(chosen["every"]), "finer": Finer.parse(*(chosen[name] for name in PLACES))}
    return made | {"filming": Filming(**{name: chosen[name] for name in FILMING})} | _computing(chosen)


def _shot(chosen: dict[str, Any]) -> Any:
    """The `Shot` of the options `SHOT`."""
    from pdr_cli.commands.export import Shot

    return Shot(**chosen)


def _computing(chosen: dict[str, Any]) -> dict[str, str]:
    """The `precision` of a request, of the options `COMPUTING`."""
    return {"precision": chosen["precision"] or "fp32"}


def _scoring(chosen: dict[str, Any]) -> dict[str, Any]:
    """How an evaluation reads inputs and computes."""
    return _reading(chosen) | _computing(chosen)


def _policy(chosen: dict[str, Any]) -> Any:
    """The `InputPolicy` of the options `MENDING` and `READING`."""
    from pdr_cli.inference.policy import InputPolicy

    mended = {name: chosen[name] for name in MENDING if chosen[name] is not None}
    return InputPolicy(**mended, **_reading(chosen))


def _reading(chosen: dict[str, Any]) -> dict[str, Any]:
    """How inputs are read, with the defaults of the options that are not given."""
    return {
        "resample_fps": chosen["resample_fps"] or 0,
        "gray_to_rgb": bool(chosen["gray_to_rgb"]),
        "group": chosen["group"] or "",
        "missing_values": tuple(chosen["missing_value"] or ()),
        "assume": tuple(chosen["assume"] or ()),
    }


def as_settings(reading: dict[str, Any]) -> dict[str, Any]:
    """The keys of the preset that the options `READING` set; None: the preset's value."""
    return {
        "data.resample_fps": reading["resample_fps"] or None,
        "data.gray_to_rgb": "true" if reading["gray_to_rgb"] else None,
        "data.group": reading["group"] or None,
        "data.missing_value": ",".join(reading["missing_values"]) or None,
        "data.assume": ",".join(reading["assume"]) or None,
    }


def _with_options(
    run: Callable[..., None], command: Callable[..., None], options: dict[str, Any], default: Any, without: str = ""
) -> Callable[..., None]:
    """`run` with the signature of the command that it wraps and further options, less the parameter `without`."""
    hints = {name: hint for name, hint in get_type_hints(command, include_extras=True).items() if name != without}
    own = [p.replace(annotation=hints[n]) for n, p in inspect.signature(command).parameters.items() if n in hints]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        for name, option in options.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = hints | options
    return run


def _covariates(chosen: dict[str, Any]) -> dict[str, str | None]:
    """The keys of the preset that the options set; None: the preset's value."""
    from pdr_cli.settings import ROLES

    named = {key: listed(",".join(chosen[key] or ())) for key in COVARIATES if key != "holidays"}
    roles = [f"{name}={role}" for role in ROLES for name in named[role]]
    holidays = chosen["holidays"]
    return {
        "data.roles": ",".join(roles) or None,
        "data.static": ",".join(named["static"]) or None,
        "data.calendar": ",".join(named["calendar"]) or None,
        "data.holidays": None if holidays is None else str(holidays),
    }


def _timing(chosen: dict[str, Any]) -> dict[str, Any]:
    """What a benchmark times, and on what."""
    return {**chosen, "variants": listed(chosen["variants"]), "device": chosen["device"] or "auto"}


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated option."""
    return [part for part in (text or "").split(",") if part]


with_covariates = _bundled(COVARIATES, "covariates", _covariates)  # {key of the preset: value}
with_members = _bundled(MEMBERS, "drawing", _drawing)
with_frames = _bundled(FRAMES, "frames", _frames)  # {name in `inference.request.Request`: value}
with_shot = _bundled(SHOT, "shot", _shot)
with_reading = _bundled(READING, "reading", _reading)  # {name in `InputPolicy`: value}
with_scoring = _bundled(READING | COMPUTING, "reading", _scoring)  # {name in the `Request` of evaluate: value}
with_timing = _bundled(TIMING, "timing", _timing)
with_policy = _bundled(MENDING | READING, "policy", _policy)
