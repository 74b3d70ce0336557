"""Cases against time at one cell: what was observed, forecast and true, and where the truth was to lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.drawing import charts, panels, scorecharts, summary, svg
from pdr_cli.drawing.album import Album, Picture, with_units
from pdr_cli.verification.document import Document

if TYPE_CHECKING:
    from pdr_cli.verification.cases import Case
    from pdr_cli.verification.fans import Fan

ROOM = 0.06  # above and below what is drawn, as a share of it


@dataclass(frozen=True)
class Fans:
    """The charts of the cases, with what they have in common: the cell in words, and who is who."""

    detail: str = ""
    legend: Sequence[dict[str, Any]] = ()
    charts: list[Picture] = field(default_factory=list)


def fans(document: Document, cases: Sequence[Case], album: Album) -> Fans:
    """A chart of each case whose uncertainty is known, all spanning as much; a PNG of each."""
    shown = [(case, case.fan) for case in cases if case.fan is not None]
    if not shown:
        return Fans()
    first, fan = shown[0]
    every = [fan for _, fan in shown]
    return Fans(
        _detail(document, first, fan),
        _legend(document, first, fan),
        [_chart(document, case, fan, ends(fan, every), album) for case, fan in shown],
    )


def ends(fan: Fan, every: Sequence[Fan]) -> tuple[float, float]:
    """The ends of the vertical axis of one of several fans, which are equally far apart in all."""
    span = max(float(np.ptp(_drawn(one))) for one in every) * (1 + 2 * ROOM) or 1.0
    values = _drawn(fan)
    middle = float(values.min() + values.max()) / 2
    return middle - span / 2, middle + span / 2


def _drawn(fan: Fan) -> np.ndarray:
    values = np.concatenate([fan.observed, fan.truth, fan.forecast, *(band.ravel() for band in fan.bands.values())])
    return values[np.isfinite(values)]


def _chart(document: Document, case: Case, fan: Fan, axis: tuple[float, float], album: Album) -> Picture:
    name, units = panels.quantity(case.truth, 0)
    init = case.observed.time.values[-1]
    dated = not isinstance(init, (float, np.floating))
    labels = (charts.with_units(name, units), time_axis.label(init) if dated else "")
    figure = scorecharts.fan(document, fan, case.model, labels, axis)
    title, key = f"{case.label.capitalize()} forecast", f"fan-{case.label}"
    picture = Picture(key, title, svg.inline(figure, _alt(document, case, fan, units), key), _inside(fan))
    place = f"{title}, {name} at {cell_name(case.truth, *fan.cell)}"
    sheet = scorecharts.captioned(figure, document, place, _inside(fan), own=True)
    album.draw(key, lambda path: panels.save(sheet, path, tight=True))
    return picture


def _inside(fan: Fan) -> str:
    """`Truth inside the 80 % band at 3 of 4 lead times, inside the 95 % band at 4.`"""
    known = np.isfinite(fan.truth)
    counts = [
        f"inside the {100 * share:.0f} % band at {int((known & (fan.truth >= low) & (fan.truth <= high)).sum())}"
        for share, (low, high) in fan.bands.items()
    ]
    return f"Truth {counts[0]} of {int(known.sum())} lead times{''.join(f', {text}' for text in counts[1:])}."


def _alt(document: Document, case: Case, fan: Fan, units: str) -> str:
    """The last frame in numbers."""
    lead = summary.lead_label(document.lead[-1], document.lead_units)
    bands = [
        f"{100 * share:.0f} % from {with_units(band[0, -1], '')} to {with_units(band[1, -1], units)}"
        for share, band in fan.bands.items()
    ]
    return (
        f"{case.label} forecast at {cell_name(case.truth, *fan.cell)}: {lead} ahead truth {with_units(fan.truth[-1], units)}, "
        f"forecast {with_units(fan.forecast[-1], units)}, {', '.join(bands)}. {_inside(fan)}"
    )


def _detail(document: Document, case: Case, fan: Fan) -> str:
    """Where the cell is and why, and what the bands are."""
    units = document.units_of("rmse") or panels.quantity(case.truth, 0)[1]
    bands = "intervals from the errors that the model made before"
    if fan.members:
        few = bool(np.isclose(max(fan.bands), (fan.members - 1) / (fan.members + 1)))
        bands = f"quantiles of {fan.members} members{', the widest from the lowest to the highest' if few else ''}"
    name = panels.quantity(case.truth, 0)[0]
    return (
        f"{name} at {cell_name(case.truth, *fan.cell)}, the cell whose RMSE over all windows and lead times, "
        f"{with_units(fan.rmse, units)}, is the median of all cells. Bands: {bands}. The charts span equally much."
    )


def _legend(document: Document, case: Case, fan: Fan) -> list[dict[str, Any]]:
    """Observed, truth, forecast and bands, as the page draws keys."""
    look = charts.looks(document).get(case.model) or next(iter(charts.looks(document).values()))
    ink, color = svg.THEME[panels.INK], svg.THEME[look["color"]]
    forecast = f"mean of {fan.members} members" if fan.members else case.model
    opacities = np.cumsum([scorecharts.FAN] * len(fan.bands))[::-1]
    bands = [
        {"name": f"{100 * share:.0f} %", "color": color, "band": round(float(opacity), 2)}
        for share, opacity in zip(fan.bands, opacities, strict=True)
    ]
    return [
        {"name": "observed", "color": ink, "dashes": "", "shape": "o"},
        {"name": "truth", "color": ink, "dashes": "", "shape": "o", "hollow": True},
        {"name": forecast, "color": color, "dashes": "", "shape": look.get("marker", "")},
        *bands,
    ]


def cell_name(series: Series, row: int, column: int) -> str:
    """Where a cell lies: `40°N, 110°W`, by other coordinates, or by row and column, counted from 1."""
    grid = panels.grid_of(series)
    if grid.x is None or grid.y is None:
        return f"row {row + 1} of {grid.height}, column {column + 1} of {grid.width}"
    y, x = (round(float(value), 3) for value in (grid.y[row], grid.x[column]))
    if grid.geographic:
        return f"{panels.degrees(y, 'y')}, {panels.degrees(x, 'x')}"
    return ", ".join(f"{label} {value:g}" for label, value in zip(grid.labels[::-1], (y, x), strict=True))
