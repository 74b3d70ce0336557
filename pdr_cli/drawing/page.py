"""One page for people: what an evaluation found, how sure it is, and what forecasts look like.

The page is self-contained: style, charts and maps are inside it; it needs no script and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data.series import Series
from pdr_cli.drawing import card, charts, panels, scorecharts, summary, svg, uncertainty
from pdr_cli.drawing.album import Album, Picture, capital, facts
from pdr_cli.drawing.fans import Fans, fans
from pdr_cli.drawing.strips import strips
from pdr_cli.errors import OutputError
from pdr_cli.system import atomic
from pdr_cli.verification import scores
from pdr_cli.verification.cellwise import CellErrors
from pdr_cli.verification.document import Document
from pdr_cli.verification.sections import Calibration, Spectra

if TYPE_CHECKING:
    from pdr_cli.verification.cases import Case

TEMPLATE = "page.html.j2"
SHAPES = {  # of `charts.MARKERS`, around (15, 6)
    "o": "M11.4 6a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z", "s": "M11.8 2.8h6.4v6.4h-6.4z",
    "^": "M15 2l4 7.4h-8z", "D": "M15 1.6l4.4 4.4l-4.4 4.4l-4.4 -4.4z", "v": "M15 10l4 -7.4h-8z",
    "P": "M13.6 2h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
}  # fmt: skip


def write(
    path: Path, document: Document, cases: Sequence[Case] = (), cells: tuple[Series, CellErrors] | None = None
) -> list[Path]:
    """Write the page, and each of its pictures as a PNG in a folder beside it that has its name without suffix.

    Args:
        path: HTML file to write; the folder is made if it is not there.
        document: of the evaluation; sections that it lacks are left out.
        cases: forecasts to show.
        cells: the truth, and the errors of the first forecaster in each of its cells, to map; None: no map.

    Returns:
        The page, then its pictures.

    Raises:
        OutputError: no such folder, no permission, or a file in the place of the pictures' folder.
    """
    atomic.check_output(path)
    folder = path.with_suffix("")
    if folder == path or (folder.exists() and not folder.is_dir()):
        raise OutputError(
            f"the pictures of {path} go to the folder {folder}, which is a file", way_out="name another report"
        )
    folder.mkdir(exist_ok=True)
    album = Album(folder, document)
    mapped = [] if cells is None else uncertainty.maps_of(*cells, document, album)
    atomic.write_text(path, _page(document, cases, album, mapped))
    return [path, *album.written]


def _page(document: Document, cases: Sequence[Case], album: Album, mapped: Sequence[Picture] = ()) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = Markup  # SVG made here; whatever comes from a document was escaped there
    return environment.get_template(TEMPLATE).render(_content(document, cases, album) | {"mapped": mapped})


def _content(document: Document, cases: Sequence[Case], album: Album) -> dict[str, Any]:
    """The values of the template, section by section."""
    top = summary.headline(document)
    extras = [
        summary.concentration_table(document),
        summary.warping_table(document),
        summary.ways_table(document),
        summary.probe_table(document),
        summary.efficiency_table(document),
        *uncertainty.tables(document),
    ]
    return {
        "title": f"Forecasts of {', '.join(document.variables)}",
        "facts": facts(document),
        "top": top,
        "scores": [t for t in (summary.score_table(document), summary.skill_table(document)) if t],
        "channels": summary.channel_table(document),
        "legend": _legend(document),
        "by_lead": _lead_charts(document, top, album),
        "banded": any(entry.low is not None for row in document.scores.values() for entry in row.values()),
        "cases": strips(document, cases, album),
        "fans": _fans(document, cases, album),
        "others": _other_charts(document, album),
        "truth": {"name": "truth", "color": svg.THEME[panels.INK], "dashes": "", "shape": ""},
        "extras": [t for t in extras if t],
        "card": card.rows(document),
        "notes": card.notes(document),
        "tables": [*summary.lead_tables(document), *uncertainty.lead_tables(document)],
        "theme": {variable: color for color, variable in svg.THEME.items()},
        "version": document.card.pdr,
    }


def _fans(document: Document, cases: Sequence[Case], album: Album) -> Fans:
    found = fans(document, cases, album)
    return replace(found, legend=[key | {"shape": SHAPES.get(key.get("shape", ""), "")} for key in found.legend])


def _legend(document: Document) -> list[dict[str, Any]]:
    """Name and line style of every forecaster."""
    looks = charts.looks(document)
    return [
        {
            "name": name,
            "color": svg.THEME[look["color"]],
            "dashes": " ".join(str(2 * d) for d in look["linestyle"][1]) if "linestyle" in look else "",
            "shape": SHAPES[look["marker"]] if "marker" in look else "",
        }
        for name, look in looks.items()
    ]


def _lead_charts(document: Document, top: summary.Headline, album: Album) -> list[Picture]:
    """The first score and the skill against lead time, then the other scores; nothing if there is one lead time."""
    if len(document.lead) < 2:
        return []
    first, *rest = [m for m in document.metrics if _known(document, m)] or [""]
    made = [_score_chart(document, first, album)] if first else []
    if top.rival is not None and any(top.rival in row and row[top.rival].lead for row in document.skill.values()):
        made.append(_skill_chart(document, top.rival, album))
    return made + [_score_chart(document, metric, album) for metric in rest]


def _known(document: Document, metric: str) -> bool:
    return any(np.isfinite(charts.numbers(row.lead)).any() for row in document.of_score(metric).values())


def _score_chart(document: Document, metric: str, album: Album) -> Picture:
    name, units = scores.title(metric), document.units_of(metric)
    lines = {n: row.lead for n, row in document.of_score(metric).items()}
    alt = f"{name} against lead time. {_ends(document, lines, units)}"
    figure = scorecharts.against_lead(document, metric)
    return album.add(f"score-{metric}", f"{capital(name)} by lead time", figure, alt)


def _skill_chart(document: Document, rival: str, album: Album) -> Picture:
    lines = {model: row[rival].lead for model, row in document.skill.items() if rival in row}
    alt = f"Skill against {rival} by lead time. {_ends(document, lines, '')}"
    caption = f"Above 0 is better than {rival}."
    return album.add("skill", f"Skill against {rival}", scorecharts.skill(document, rival), alt, caption)


def _ends(document: Document, lines: Mapping[str, Sequence[Any]], units: str) -> str:
    """`pdr 0.81 K at 6 h to 2.3 K at 3 d; persistence …`: the text alternative of a chart."""
    near, far = (summary.lead_label(document.lead[i], document.lead_units) for i in (0, -1))
    places = summary.decimals(v for values in lines.values() for v in values)
    said = [
        f"{name} {summary.number(v[0], places)} {units} at {near} to {summary.number(v[-1], places)} {units} at {far}"
        for name, v in lines.items()
    ]
    return "; ".join(said).replace("  ", " ") + "."


def _other_charts(document: Document, album: Album) -> list[Picture]:
    made = []
    if document.spectra is not None:
        made.append(_spectra_chart(document, document.spectra, album))
    if document.calibration:
        made.append(_calibration_chart(document, document.calibration, album))
    return made + uncertainty.pictures(document, album)


def _spectra_chart(document: Document, entry: Spectra, album: Album) -> Picture:
    when = "" if entry.lead is None else f" at {summary.lead_label(entry.lead, document.lead_units)}"
    truth = charts.numbers(entry.power.get("truth") or ())
    finest = int(np.argmin(charts.numbers(entry.wavelength)))
    shares = [
        f"{n} {summary.percent(charts.numbers(p)[finest] / truth[finest])} %"
        for n, p in entry.power.items()
        if n != "truth" and p and truth.size and truth[finest] > 0
    ]
    alt = f"Power against wavelength{when}."
    alt += f" Of the truth's power at the shortest waves: {', '.join(shares)}." if shares else ""
    caption = "A forecast below the truth at short waves (right) is too smooth there."
    return album.add("spectra", f"Power spectra{when}", scorecharts.spectra(document, entry), alt, caption)


def _calibration_chart(document: Document, entry: Mapping[str, Calibration], album: Album) -> Picture:
    worst = {}
    for name, bins in entry.items():
        apart = charts.numbers(bins.forecast) - charts.numbers(bins.observed)
        worst[name] = float(np.nanmax(np.abs(apart))) if np.isfinite(apart).any() else None
    places = summary.decimals(worst.values())
    said = [
        f"{n} {summary.number(v, places)} {'' if document.units == '1' else document.units}".strip()
        for n, v in worst.items()
    ]
    alt = f"Mean error by forecast value. Largest in any bin: {', '.join(said)}."
    caption = "0 means right on average wherever the forecast says so. Bars: how many cells fall in each bin."
    return album.add("calibration", "Bias by forecast value", scorecharts.calibration(document, entry), alt, caption)
