"""What the page of an evaluation shows of ensembles, intervals and events: rank histograms, reliability, coverage, tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pdr_cli.data.series import Series
from pdr_cli.drawing import charts, maps, panels, scorecharts, summary, svg
from pdr_cli.drawing.album import Album, Picture
from pdr_cli.drawing.summary import Cell, Table
from pdr_cli.verification import scores
from pdr_cli.verification.cellwise import CellErrors
from pdr_cli.verification.document import Document
from pdr_cli.verification.sections import ByLead, Calibration, EventScores, Intervals


def pictures(document: Document, album: Album) -> list[Picture]:
    """The charts of ranks, of what events' probabilities are worth, and of what intervals hold."""
    made = [_ranks(document, album)] if document.ranks else []
    for event, row in (document.events or {}).items():
        drawn = {name: found.reliability for name, found in row.items() if found.reliability is not None}
        if drawn:
            made.append(_reliability(document, event, drawn, album))
    if len(document.lead) > 1:
        made += [_coverage(document, name, found, album) for name, found in (document.intervals or {}).items() if found]
    return made


def maps_of(truth: Series, cells: CellErrors, document: Document, album: Album) -> list[Picture]:
    """Maps of the RMSE and the bias of one forecaster, of the first channel; none under another convention."""
    if document.convention != "standard" or not np.isfinite(cells.rmse[0]).any():
        return []
    grid, (name, units) = panels.grid_of(truth), panels.quantity(truth, 0)
    made = []
    for key, frame, signed in (("rmse", cells.rmse[0], False), ("bias", cells.bias[0], True)):
        word = scores.title(key)
        figure = maps.errors(grid, frame, (f"{word} of {name}", units), signed)
        low, high = (summary.number(v, summary.decimals([v])) for v in (np.nanmin(frame), np.nanmax(frame)))
        alt = f"{word} of {name} in each cell, from {low} to {high} {units}.".replace(" .", ".")
        picture = Picture(f"map-{key}", f"Where {cells.name} is off: {word}", svg.inline(figure, alt, f"map-{key}"))
        album.draw(picture.name, lambda path, sheet=figure: panels.save(sheet, path, tight=True))  # type: ignore[misc]
        made.append(picture)
    return made


def tables(document: Document) -> list[Table]:
    """The scores of each event, and what intervals hold."""
    found = [] if document.strata is None else [_strata_table(document)]
    found += [_event_table(event, row) for event, row in (document.events or {}).items()]
    return found + [
        _interval_table(document, name, entry) for name, entry in (document.intervals or {}).items() if entry
    ]


def _ranks(document: Document, album: Album) -> Picture:
    entry = document.ranks or {}
    said = [
        f"{n} {summary.percent(r.outside)} % (if reliable {summary.percent(r.expected)} %)" for n, r in entry.items()
    ]
    alt = f"Share of truths by rank among the members. Outside of all members: {'; '.join(said)}."
    caption = "Level at 1 is reliable; high at both ends is too sure, low there too timid, a slope is a bias."
    return album.add("ranks", "Rank of the truth", scorecharts.ranks(document), alt, caption)


def _reliability(document: Document, event: str, drawn: Mapping[str, Calibration], album: Album) -> Picture:
    worst = {n: np.abs(charts.numbers(b.forecast) - charts.numbers(b.observed)).max() for n, b in drawn.items()}
    alt = f"Share of cases with {event} by forecast probability. "
    alt += "Farthest from it: " + ", ".join(f"{n} {summary.percent(v)} %" for n, v in worst.items()) + "."
    caption = "On the diagonal an event happens as often as the members say."
    key = f"reliability-{list(document.events or {}).index(event)}"
    return album.add(key, f"Reliability of {event}", scorecharts.reliability(document, drawn), alt, caption)


def _coverage(document: Document, name: str, found: list[Intervals], album: Album) -> Picture:
    said = [f"{summary.percent(one.coverage.overall)} % of {summary.percent(one.nominal)} %" for one in found]
    alt = f"Share of truths inside the intervals of {name} by lead time. Over all: {', '.join(said)}."
    adaptive = [f"{summary.percent(one.adaptive.coverage.overall)} %" for one in found if one.adaptive is not None]
    alt += f" Of adaptive ones: {', '.join(adaptive)}." if adaptive else ""
    caption = "Faint lines: what the intervals should hold."
    if any(one.adaptive is not None for one in found):
        caption += " Hollow: adaptive intervals."
    key = f"intervals-{list(document.intervals or {}).index(name)}"
    return album.add(key, f"Intervals of {name}", scorecharts.coverage(document, name, found), alt, caption)


def _strata_table(document: Document) -> Table:
    main, units = document.headline, document.units_of(document.headline)
    values = [[row[n][main].overall for n in document.forecasters] for row in (document.strata or {}).values()]
    places = summary.decimals(v for row in values for v in row)
    cells = [[Cell(summary.number(v, places)) for v in row] for row in values]
    title = f"{scores.title(main)}{f' [{units}]' if units else ''} by season and region"
    return Table(
        title, "", [(name, "") for name in document.forecasters], list(zip(document.strata or {}, cells, strict=True))
    )


def _event_table(event: str, row: Mapping[str, EventScores]) -> Table:
    names = list(next(iter(row.values())).scores)
    rows = [(_label(n), [_cell(found.scores[n].overall) for found in row.values()]) for n in names]
    if any(found.roc_area is not None for found in row.values()):
        rows.append(("area under ROC", [_cell(found.roc_area) for found in row.values()]))
    return Table(f"Event {event}", "score", [(name, "") for name in row], rows)


def lead_tables(document: Document) -> list[Table]:
    """The coverage of intervals by lead time."""
    return [
        summary.by_lead(document, f"share of truths inside the intervals of {name}", _coverages(found))
        for name, found in (document.intervals or {}).items()
        if found
    ]


def _coverages(found: list[Intervals]) -> dict[str, ByLead]:
    """The coverage of each interval, in each season too, and of adaptive ones."""
    columns: dict[str, ByLead] = {}
    for one in found:
        share = f"{summary.percent(one.nominal)} %"
        columns[share] = one.coverage
        columns |= {f"{share}, {label}": held for label, held in (one.seasons or {}).items()}
        columns |= {f"{share}, adaptive": one.adaptive.coverage} if one.adaptive is not None else {}
    return columns


def _interval_table(document: Document, name: str, found: list[Intervals]) -> Table:
    others = {f"{summary.percent(one.nominal)} %": (one.width, one.score) for one in found}
    others |= {
        f"{summary.percent(one.nominal)} %, adaptive": (one.adaptive.width, one.adaptive.score)
        for one in found
        if one.adaptive is not None
    }
    rows = []
    for label, coverage in _coverages(found).items():
        width, score = (by.overall for by in others[label]) if label in others else (None, None)
        rows.append((label, [_cell(coverage.overall), _cell(width), _cell(score)]))
    heads = [("coverage", ""), ("mean width", document.units), ("interval score", document.units)]
    return Table(f"Intervals of {name}", "interval", heads, rows)


def _label(score: str) -> str:
    head, _, side = score.partition("_")
    return f"FSS, {side} x {side} cells" if side else head.upper() if len(head) == 3 else head


def _cell(value: Any) -> Cell:
    return Cell(summary.number(value, summary.decimals([value])))
