"""One page for people: what an evaluation found, how sure it is, and what forecasts look like.

The page needs nothing but itself: style, charts and maps are inside it, no script, no network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.drawing import charts, maps, panels, pictures, scorecharts, summary, svg
from pdr_cli.errors import OutputError
from pdr_cli.system import atomic

if TYPE_CHECKING:
    from pdr_cli.verification.cases import Case

TEMPLATE = "page.html.j2"
SHAPES = {  # of `charts.MARKERS`, around (15, 6)
    "o": "M11.4 6a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z", "s": "M11.8 2.8h6.4v6.4h-6.4z",
    "^": "M15 2l4 7.4h-8z", "D": "M15 1.6l4.4 4.4l-4.4 4.4l-4.4 -4.4z", "v": "M15 10l4 -7.4h-8z",
    "P": "M13.6 2h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
}  # fmt: skip
CONVENTIONS = {
    "standard": "Errors are means over cells, frames and windows, in the data's units; the root of RMSE is "
    "taken once, at the end.",
    "openstl": "As OpenSTL's tables have them, errors summed over channels and cells, then averaged over "
    "frames and windows. Not comparable with the standard convention.",
}
PROTOCOLS = {
    "honest": "The windows scored served neither training nor the choice of the model.",
    "openstl": "The model was chosen on the windows that it is scored on, as OpenSTL's tables are. Such scores "
    "flatter; compare them only with others made so.",
}
WIDE, TALL = 0.45, 1.4  # panels flatter than this have a row of a phone to themselves; higher ones stand six abreast


@dataclass(frozen=True)
class Picture:
    """A picture of the page: `image` is its SVG element, `name` that of its PNG."""

    name: str
    title: str
    image: str
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """The panels of one case and its colour bars; `shape` of the panels is "wide", "tall" or ""."""

    title: str
    detail: str
    panels: list[Picture]
    bars: list[str]
    shape: str


@dataclass
class Album:
    """Collects pictures for the page and writes each as a PNG of its own."""

    folder: Path
    document: Mapping[str, Any]
    written: list[Path] = field(default_factory=list)

    def add(self, name: str, title: str, figure: Any, alt: str, caption: str = "") -> Picture:
        """Put a figure on the page and beside it."""
        picture = Picture(name, title, svg.inline(figure, alt, name), caption)
        sheet = scorecharts.captioned(figure, self.document, title, "; ".join(facts(self.document)[:-1]))
        self.draw(name, lambda path: panels.save(sheet, path, tight=True))
        return picture

    def draw(self, name: str, how: Callable[[Path], None]) -> None:
        """Write `name`.png by `how(path)`."""
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.png"
        how(path)
        self.written.append(path)


def write(path: Path, document: Mapping[str, Any], cases: Sequence[Case] = ()) -> list[Path]:
    """Write the page, and each of its pictures as a PNG in a folder beside it that has its name without suffix.

    Args:
        path: HTML file to write; the folder is made if it is not there.
        document: what `pdr evaluate -o` writes; sections whose numbers it lacks are left out.
        cases: forecasts to show.

    Returns:
        The page, then its pictures.

    Raises:
        OutputError: no such folder, no permission, or a file in the place of the pictures' folder.
    """
    atomic.check_output(path)
    folder = path.with_suffix("")
    if folder == path or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"the pictures of {path} go to the folder {folder}, but that is a file; name another report")
    folder.mkdir(exist_ok=True)
    album = Album(folder, document)
    atomic.write_text(path, _page(document, cases, album))
    return [path, *album.written]


def _page(document: Mapping[str, Any], cases: Sequence[Case], album: Album) -> str:
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
    return environment.get_template(TEMPLATE).render(_content(document, cases, album))


def _content(document: Mapping[str, Any], cases: Sequence[Case], album: Album) -> dict[str, Any]:
    """What the template shows, section by section."""
    top = summary.headline(document)
    extras = [
        summary.concentration_table(document),
        summary.warping_table(document),
        summary.efficiency_table(document),
    ]
    return {
        "title": f"Forecasts of {', '.join(document.get('variables', ()))}",
        "facts": facts(document),
        "top": top,
        "scores": [t for t in (summary.score_table(document), summary.skill_table(document)) if t],
        "channels": summary.channel_table(document),
        "legend": _legend(document),
        "by_lead": _lead_charts(document, top, album),
        "banded": any("low" in entry for row in document["scores"].values() for entry in row.values()),
        "cases": _strips(document, cases, album),
        "others": _other_charts(document, album),
        "truth": {"name": "truth", "color": svg.THEME[panels.INK], "dashes": "", "shape": ""},
        "extras": [t for t in extras if t],
        "card": _card(document),
        "notes": _notes(document),
        "tables": summary.lead_tables(document),
        "theme": {variable: color for color, variable in svg.THEME.items()},
        "version": document.get("card", {}).get("pdr", ""),
    }


def facts(document: Mapping[str, Any]) -> list[str]:
    """What was forecast, when and how often, in a few words each."""
    period = document.get("period")
    said = [f"{document['n_windows']:,} {document.get('split', '')} windows"] if "n_windows" in document else []
    if period:
        said.append(period if isinstance(period, str) else " to ".join(map(str, period)))
    lead = [summary.lead_label(v, document.get("lead_units", "hours")) for v in (document["lead"] or [0])]
    said.append(f"lead times {lead[0]} to {lead[-1]}" if len(lead) > 1 else f"lead time {lead[0]}")
    return said


def _legend(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name and line style of every forecaster."""
    looks = charts.looks(list(document["scores"]), document.get("kinds", {}))
    return [
        {
            "name": name,
            "color": svg.THEME[look["color"]],
            "dashes": " ".join(str(2 * d) for d in look["linestyle"][1]) if "linestyle" in look else "",
            "shape": SHAPES[look["marker"]] if "marker" in look else "",
        }
        for name, look in looks.items()
    ]


def _lead_charts(document: Mapping[str, Any], top: summary.Headline, album: Album) -> list[Picture]:
    """The first score and the skill against lead time, then the other scores; nothing if there is one lead time."""
    if len(document["lead"]) < 2:
        return []
    first, *rest = [m for m in document["metrics"] if _known(document, m)] or [""]
    made = [_score_chart(document, first, album)] if first else []
    if top.rival is not None and any("lead" in row.get(top.rival, {}) for row in document["skill"].values()):
        made.append(_skill_chart(document, top.rival, album))
    return made + [_score_chart(document, metric, album) for metric in rest]


def _known(document: Mapping[str, Any], metric: str) -> bool:
    rows = [row[metric] for row in document["scores"].values() if metric in row]
    return any(np.isfinite(charts.numbers(row["lead"])).any() for row in rows)


def _score_chart(document: Mapping[str, Any], metric: str, album: Album) -> Picture:
    name, units = charts.metric_name(metric), charts.metric_units(document, metric)
    rows = {n: row[metric] for n, row in document["scores"].items() if metric in row}
    alt = f"{name} against lead time. {_ends(document, {n: r['lead'] for n, r in rows.items()}, units)}"
    figure = scorecharts.against_lead(document, metric)
    return album.add(f"score-{metric}", f"{_capital(name)} by lead time", figure, alt)


def _skill_chart(document: Mapping[str, Any], rival: str, album: Album) -> Picture:
    rows = {m: row[rival] for m, row in document["skill"].items() if rival in row}
    alt = f"Skill against {rival} by lead time. {_ends(document, {m: r['lead'] for m, r in rows.items()}, '')}"
    caption = f"Above 0 is better than {rival}."
    return album.add("skill", f"Skill against {rival}", scorecharts.skill(document, rival), alt, caption)


def _ends(document: Mapping[str, Any], lines: Mapping[str, Sequence[Any]], units: str) -> str:
    """`pdr 0.81 K at 6 h to 2.3 K at 3 d; persistence …`: what a chart says, for those who do not see it."""
    unit = document.get("lead_units", "hours")
    near, far = (summary.lead_label(document["lead"][i], unit) for i in (0, -1))
    places = summary.decimals(v for values in lines.values() for v in values)
    said = [
        f"{name} {summary.number(v[0], places)} {units} at {near} to {summary.number(v[-1], places)} {units} at {far}"
        for name, v in lines.items()
    ]
    return "; ".join(said).replace("  ", " ") + "."


def _other_charts(document: Mapping[str, Any], album: Album) -> list[Picture]:
    made = []
    if document.get("spectra"):
        made.append(_spectra_chart(document, album))
    if document.get("calibration"):
        made.append(_calibration_chart(document, album))
    return made


def _spectra_chart(document: Mapping[str, Any], album: Album) -> Picture:
    entry = document["spectra"]
    units = document.get("lead_units", "hours")
    when = f" at {summary.lead_label(entry['lead'], units)}" if summary.finite(entry.get("lead")) else ""
    truth = charts.numbers(entry["power"].get("truth", ()))
    finest = int(np.argmin(charts.numbers(entry["wavelength"])))
    shares = [
        f"{n} {summary.percent(charts.numbers(p)[finest] / truth[finest])} %"
        for n, p in entry["power"].items()
        if n != "truth" and truth.size and truth[finest] > 0
    ]
    alt = f"Power against wavelength{when}."
    alt += f" Of the truth's power at the shortest waves: {', '.join(shares)}." if shares else ""
    caption = "A forecast below the truth at short waves (right) is too smooth there."
    return album.add("spectra", f"Power spectra{when}", scorecharts.spectra(document), alt, caption)


def _calibration_chart(document: Mapping[str, Any], album: Album) -> Picture:
    worst = {}
    for name, bins in document["calibration"].items():
        apart = charts.numbers(bins["forecast"]) - charts.numbers(bins["observed"])
        worst[name] = float(np.nanmax(np.abs(apart))) if np.isfinite(apart).any() else None
    units = str(document.get("units") or "")
    places = summary.decimals(worst.values())
    said = [f"{n} {summary.number(v, places)} {'' if units == '1' else units}".strip() for n, v in worst.items()]
    alt = f"Mean error by forecast value. Largest in any bin: {', '.join(said)}."
    caption = "0 means right on average wherever the forecast says so. Bars: how many cells fall in each bin."
    return album.add("calibration", "Bias by forecast value", scorecharts.calibration(document), alt, caption)


def _strips(document: Mapping[str, Any], cases: Sequence[Case], album: Album) -> list[Strip]:
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


def _scales(view: maps.View, cases: Sequence[Case]) -> tuple[panels.Limits, panels.Limits]:
    """Colour scales of values and of errors, one of each for all cases."""
    values = [view.of(f) for c in cases for f in (c.observed.values[-1], c.truth.values[-1], c.forecast.values[-1])]
    errors = [view.difference(c.forecast.values[-1], c.truth.values[-1]) for c in cases]
    return panels.shared_limits(values, *view.ends), panels.symmetric_limits(errors)


def _strip(
    document: Mapping[str, Any], case: Case, view: maps.View, scales: tuple[panels.Limits, panels.Limits], index: int
) -> Strip:
    """Input, truth, forecast, error, and where there are Gaussians the coarse forecast and their ellipses."""
    grid = panels.grid_of(case.observed)
    shape = "wide" if grid.ratio < WIDE else "tall" if grid.ratio > TALL else ""
    key = f"{case.label}-{index}-{view.name}"
    error = view.difference(case.forecast.values[-1], case.truth.values[-1])
    values = {
        "last input": view.of(case.observed.values[-1]),
        "truth": view.of(case.truth.values[-1]),
        "forecast": view.of(case.forecast.values[-1]),
    }
    if case.coarse is not None:
        values["without Gaussians"] = view.of(case.coarse[-1])
    made = {text: maps.panel(grid, frame, view.cmap, scales[0]) for text, frame in values.items()}
    made["error"] = maps.panel(grid, error, pictures.DIVERGING, scales[1])
    notes = {"error": f"forecast − truth, RMSE {_with(pictures.rmse(error, np.zeros_like(error)), view.units)}"}
    if case.gaussians is not None:
        text = f"{len(case.gaussians['x'])} Gaussians"
        made[text] = maps.ellipses(grid, _gray(values["forecast"]), case.gaussians, view.channel or 0)
        notes[text] = "1 σ; red adds, blue takes away"
    times = {"last input": case.observed.time.values[-1]} | dict.fromkeys(list(values)[1:], case.truth.time.values[-1])
    shown = [
        Picture("", _capital(text), svg.inline(figure, f"{case.label} case, {_alt(view, text, values, notes)}", f"{key}-{n}"),
                notes.get(text) or time_axis.label(times[text]))
        for n, (text, figure) in enumerate(made.items())
    ]  # fmt: skip
    return Strip(*_case_title(document, case, view), shown, _bars(view, scales, key), shape)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _gray(frame: np.ndarray) -> np.ndarray:
    return frame.mean(axis=-1) if frame.ndim == 3 else frame


def _alt(view: maps.View, text: str, values: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    """What a panel shows with its key number: the mean of a field, the RMSE of an error."""
    if text not in values:
        return f"{text}: {notes[text]}"
    known = values[text][np.isfinite(values[text])]
    mean = float(known.mean()) * (255 if view.channel is None else 1) if known.size else None
    return f"{text} of {view.name}: mean {_with(mean, view.units)}"


def _with(value: Any, units: str) -> str:
    return f"{summary.number(value, summary.decimals([value]))} {units}".strip()


def _case_title(document: Mapping[str, Any], case: Case, view: maps.View) -> tuple[str, str]:
    """The name of a case, and when it was, how far it looks and how well it did."""
    metric = document["metrics"][0]
    last, valid = case.observed.time.values, case.truth.time.values
    steps = time_axis.find_step(np.concatenate([last[-2:], valid]))
    lead = panels.lead_labels(last[-1], valid, steps)[-1]
    name = f", {view.name}" if view.channel is not None and case.observed.sizes["channel"] > 1 else ""
    score = _with(case.score, charts.metric_units(document, metric))
    return (
        f"{case.label.capitalize()} forecast{name}",
        f"{case.model}, from {time_axis.label(last[-1])}, shown at {lead}; "
        f"{charts.metric_name(metric)} over all lead times {score}",
    )


def _bars(view: maps.View, scales: tuple[panels.Limits, panels.Limits], key: str) -> list[str]:
    """Colour bars of values, unless they are colours themselves, and of errors."""
    wanted = [] if view.channel is None else [(view.cmap, scales[0], view.name)]
    wanted.append((pictures.DIVERGING, scales[1], "error, forecast − truth"))
    return [
        svg.inline(
            maps.bar(cmap, limits, label, view.units),
            f"colour scale of {label}: {_with(limits.low, view.units)} to {_with(limits.high, view.units)}",
            f"{key}-bar-{n}",
        )
        for n, (cmap, limits, label) in enumerate(wanted)
    ]


def _card(document: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The protocol as (name, values), each value with whether it is to be set as code."""
    card = dict(document.get("card") or {})
    rows: list[tuple[str, list[tuple[str, bool]]]] = [
        ("data", [(str(f), False) for f in _listed(card.pop("data", ()))]),
        ("truth, SHA-256", [(str(card.pop("truth_sha256", "") or ""), True)]),
        ("split", [(str(document.get("split", "")), False)]),
        ("windows", [(fact, False) for fact in facts(document)]),
        ("convention", [(str(document.get("convention", "")), False)]),
        ("protocol", [(str(document.get("protocol", "")), False)]),
        ("missing cells", [(_missing(document.get("missing")), False)]),
        ("interval", [(_bootstrap(document.get("bootstrap")), False)]),
        ("SSIM", [(str(card.pop("ssim", "") or ""), False)]),
    ]
    for name, model in (card.pop("models", None) or {}).items():
        rows.append((f"model {name}", _model_lines(model)))
    rows.append(("command", [(str(card.pop("command", "") or ""), True)]))
    rows += [(summary.label(str(k)), [(_plain(v), False)]) for k, v in card.items()]
    return [(name, [v for v in values if v[0]]) for name, values in rows if any(v[0] for v in values)]


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{summary.label(str(k))} {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    return "" if value is None else str(value)


def _model_lines(model: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """File, what it is, and its hash."""
    rest = {k: v for k, v in model.items() if k not in ("file", "sha256") and v is not None}
    said = [f"{v:,} {k}" if k == "parameters" else f"{summary.label(k)} {_plain(v)}" for k, v in rest.items()]
    return [
        (str(model.get("file") or ""), False),
        (", ".join(said), False),
        (f"sha256:{model['sha256']}" if model.get("sha256") else "", True),
    ]


def _missing(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    return f"{entry['cells']:,} of {entry['of']:,} left out of every score ({summary.percent(entry['share'])} %)"


def _bootstrap(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    return (
        f"{summary.percent(entry['level'])} %, block bootstrap: {entry['blocks']} blocks of "
        f"{entry['windows_per_block']} windows, {entry['resamples']:,} resamples"
    )


def _notes(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the page's words mean, as far as it uses them."""
    notes = []
    if document.get("skill"):
        notes.append((
            "Skill",
            "1 − MSE of the model / MSE of the rival. 100 % is a perfect forecast, 0 is as good as the rival, "
            "below 0 is worse. Persistence repeats the last observation; climatology is the mean of the training years.",
        ))  # fmt: skip
    if document.get("bootstrap"):
        notes.append((
            "Interval",
            "Windows near in time resemble each other, so whole blocks of neighbouring windows are drawn anew, and "
            "models and rivals are compared on the same draws. Where the interval of a skill holds 0 the difference "
            "is not significant (n.s.). It covers chance in the test period, not in training.",
        ))  # fmt: skip
    for key, known in (("convention", CONVENTIONS), ("protocol", PROTOCOLS)):
        chosen = str(document.get(key))
        if chosen in known:
            notes.append((f"{_capital(key)}: {chosen}", known[chosen]))
    return notes
