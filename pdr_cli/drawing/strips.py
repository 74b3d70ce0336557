"""Cases as strips of panels: input, truth, forecast, error and Gaussians, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.drawing import maps, panels, pictures, svg
from pdr_cli.drawing.album import Album, Picture, capital, with_units
from pdr_cli.verification import scores
from pdr_cli.verification.document import Document

if TYPE_CHECKING:
    from pdr_cli.verification.cases import Case

WIDE, TALL = 0.45, 1.4  # flatter panels have a row of a phone to themselves; of higher ones six stand side by side
Scales = tuple[panels.Limits, panels.Limits]  # of values and of errors


@dataclass(frozen=True)
class Strip:
    """The panels of one case and its colour bars; `shape` of the panels is "wide", "tall" or ""."""

    title: str
    detail: str
    panels: list[Picture]
    bars: list[str]
    shape: str


def strips(document: Document, cases: Sequence[Case], album: Album) -> list[Strip]:
    """One strip for each case, all on the same colour scales; a PNG sheet of each."""
    if not cases:
        return []
    for case in cases:
        album.draw(f"case-{case.label}", lambda path, c=case: _sheet(path, c))  # type: ignore[misc]
    return [
        _strip(document, case, view, scales, index)
        for view, scales in ((v, _scales(v, cases)) for v in maps.views_of(cases[0].observed))
        for index, case in enumerate(cases)
    ]


def _sheet(path: Path, case: Case) -> None:
    if case.coarse is None or case.painted is None or case.gaussians is None:
        pictures.forecast(path, case.observed, case.forecast, case.truth, model=case.model)
        return
    pictures.layers(path, case.observed, case.forecast, case.coarse, case.painted, case.gaussians, case.truth)


def _scales(view: maps.View, cases: Sequence[Case]) -> Scales:
    """Colour scales of values and of errors, one of each for all cases."""
    values = [view.of(f) for c in cases for f in (c.observed.values[-1], c.truth.values[-1], c.forecast.values[-1])]
    errors = [view.difference(c.forecast.values[-1], c.truth.values[-1]) for c in cases]
    return panels.shared_limits(values, *view.ends), panels.symmetric_limits(errors)


def _strip(document: Document, case: Case, view: maps.View, scales: Scales, index: int) -> Strip:
    """Input, truth, forecast and error; of a model with Gaussians also the coarse forecast and their ellipses."""
    grid = panels.grid_of(case.observed)
    shape = "wide" if grid.ratio < WIDE else "tall" if grid.ratio > TALL else ""
    key = f"{case.label}-{index}-{view.name}"
    values = _values(case, view)
    figures, notes = _figures(case, view, grid, values, scales)
    init, valid = case.observed.time.values[-1], case.truth.time.values[-1]
    shown = []
    for number, (text, figure) in enumerate(figures.items()):
        image = svg.inline(figure, f"{case.label} case, {_alt(view, text, values, notes)}", f"{key}-{number}")
        caption = notes.get(text) or time_axis.label(init if text == "last input" else valid)
        shown.append(Picture("", capital(text), image, caption))
    return Strip(*_title(document, case, view), shown, _bars(view, scales, key), shape)


def _values(case: Case, view: maps.View) -> dict[str, np.ndarray]:
    """The last frames of a case on one colour scale, by panel."""
    values = {
        "last input": view.of(case.observed.values[-1]),
        "truth": view.of(case.truth.values[-1]),
        "forecast": view.of(case.forecast.values[-1]),
    }
    return values if case.coarse is None else values | {"without Gaussians": view.of(case.coarse[-1])}


def _figures(
    case: Case, view: maps.View, grid: panels.Grid, values: Mapping[str, np.ndarray], scales: Scales
) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures and notes of the panels, by panel."""
    error = view.difference(case.forecast.values[-1], case.truth.values[-1])
    figures = {text: maps.panel(grid, frame, view.cmap, scales[0]) for text, frame in values.items()}
    figures["error"] = maps.panel(grid, error, pictures.DIVERGING, scales[1])
    notes = {"error": f"forecast − truth, RMSE {with_units(pictures.rmse(error, np.zeros_like(error)), view.units)}"}
    if case.gaussians is not None:
        text = f"{len(case.gaussians['x'])} Gaussians"
        figures[text] = maps.ellipses(grid, _gray(values["forecast"]), case.gaussians, view.channel or 0)
        notes[text] = "1 σ; red adds, blue takes away"
    return figures, notes


def _gray(frame: np.ndarray) -> np.ndarray:
    return frame.mean(axis=-1) if frame.ndim == 3 else frame


def _alt(view: maps.View, text: str, values: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    """What a panel shows with its key number: the mean of a field, the RMSE of an error."""
    if text not in values:
        return f"{text}: {notes[text]}"
    known = values[text][np.isfinite(values[text])]
    mean = float(known.mean()) * (255 if view.channel is None else 1) if known.size else None
    return f"{text} of {view.name}: mean {with_units(mean, view.units)}"


def _title(document: Document, case: Case, view: maps.View) -> tuple[str, str]:
    """The title of a case, and its init time, lead time and score."""
    metric = document.headline
    last, valid = case.observed.time.values, case.truth.time.values
    steps = time_axis.find_step(np.concatenate([last[-2:], valid]))
    lead = panels.lead_labels(last[-1], valid, steps)[-1]
    name = f", {view.name}" if view.channel is not None and case.observed.sizes["channel"] > 1 else ""
    score = with_units(case.score, document.units_of(metric))
    return (
        f"{case.label.capitalize()} forecast{name}",
        f"{case.model}, from {time_axis.label(last[-1])}, shown at {lead}; "
        f"{scores.title(metric)} over all lead times {score}",
    )


def _bars(view: maps.View, scales: Scales, key: str) -> list[str]:
    """Colour bars of values, unless they are colours themselves, and of errors."""
    wanted = [] if view.channel is None else [(view.cmap, scales[0], view.name)]
    wanted.append((pictures.DIVERGING, scales[1], "error, forecast − truth"))
    return [
        svg.inline(
            maps.bar(cmap, limits, label, view.units),
            f"colour scale of {label}: {with_units(limits.low, view.units)} to {with_units(limits.high, view.units)}",
            f"{key}-bar-{n}",
        )
        for n, (cmap, limits, label) in enumerate(wanted)
    ]
