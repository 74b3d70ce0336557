"""What an evaluation says, in words and tables: the headline, and every number as a reader wants it.

Everything here takes the document of `pdr evaluate -o`; what it lacks is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdr_cli.data.times import Step
from pdr_cli.verification import scores
from pdr_cli.verification.document import Document, Skill
from pdr_cli.verification.sections import ByLead, Section

NOTHING = "–"  # no such number, or none that is finite
SAME = 0.001  # scores nearer than this share the mark of the best
FIGURES = 4  # significant figures of the largest number of a column
LABELS = {
    "macs": "multiply-adds a forecast", "flops": "floating-point operations", "memory_mb": "peak memory [MB]",
    "p90": "90th percentile", "l1": "L1", "l2": "L2",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Text of a cell, a quieter line under it, and `mark`: "best", "unsure" or none."""

    text: str
    detail: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table with row names: `heads` are (name, units) of the columns after the first."""

    caption: str
    corner: str
    heads: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)


@dataclass(frozen=True)
class Headline:
    """The result in one number and one sentence: `figure` with `label` under it, `tone` "good", "bad" or "open"."""

    model: str
    rival: str | None
    figure: str
    label: str
    sentence: str
    tone: str


def finite(value: Any) -> bool:
    """True for a number that can be written down."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, places: int) -> str:
    """A number with its minus sign and thousands apart; a dash where there is none."""
    if not finite(value):
        return NOTHING
    text = f"{value:,.{places}f}" if places <= 6 else f"{value:.{FIGURES - 1}e}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def decimals(values: Iterable[Any]) -> int:
    """Decimals that give the largest of some numbers four figures, the same for all, so that points align."""
    largest = max((abs(v) for v in values if finite(v)), default=0.0)
    return max(0, FIGURES - 1 - math.floor(math.log10(largest))) if largest else 0


def percent(value: Any) -> str:
    """A share as whole percents, or to one decimal below 10 %."""
    if not finite(value):
        return NOTHING
    return number(100 * value, 0 if abs(value) >= 0.0995 else 1)


def span(found: tuple[float, float]) -> str:
    """An interval in percent, both ends with the same decimals."""
    places = 0 if max(map(abs, found)) >= 0.0995 else 1
    return f"{number(100 * found[0], places)} to {number(100 * found[1], places)}"


def headline(document: Document) -> Headline:
    """The best model against the best baseline, and whether the difference can be told from chance."""
    model = document.champion
    rival = document.hardest_rival(model)
    if rival is None:
        return _alone(document, model)
    entry = document.skill[model][rival]
    overall = entry.overall
    baselines = sum(map(document.is_baseline, document.skill[model]))
    label = f"skill against {rival}" + (f", the best of {baselines} baselines" if baselines > 1 else "")
    figure = f"{'+' if overall > 0 else ''}{percent(overall)}\u00a0%"
    named = f"{rival}, the best simple forecast" if baselines > 1 and document.is_baseline(rival) else rival
    sentence, tone = _verdict(model, named, entry, document.skill_score)
    return Headline(model, rival, figure, label, sentence, tone)


def _verdict(model: str, rival: str, entry: Skill, score: str) -> tuple[str, str]:
    """The sentence under the number, and its tone; `score`: that the skill is made of."""
    overall, found, uncertain = entry.overall, entry.bounds, entry.insignificant
    if overall == 0 and found == (0.0, 0.0):
        return f"{model} forecasts as {rival}: no window has another {score}.", "open"
    if uncertain:
        way = "better" if overall > 0 else "worse"
        margin = _margin(abs(overall), found if overall > 0 else _turned(found), "lower" if overall > 0 else "higher")
        return f"{model} is not significantly {way} than {rival}: its {score} is {margin}.", "open"
    tested = "" if found else " No interval was computed, so chance is not ruled out."
    if overall > 0:
        better = f"{percent(overall)}\u00a0% better than {rival}"
        return f"{model} is {better}, by {_interval(score, found)}.{tested}", "good" if found else "open"
    worse = f"{percent(-overall)}\u00a0% worse than {rival}"
    return f"{model} is {worse}, by {_interval(score, _turned(found))}.{tested}", "bad"


def score_table(document: Document) -> Table:
    """Every forecaster by every metric overall; the best of each marked."""
    metrics = [m for m in document.metrics if document.of_score(m)]
    columns = [_column(document, m) for m in metrics]
    rows = [(name, [column[name] for column in columns]) for name in document.forecasters]
    return Table("All lead times", "forecaster", [_head(document, m) for m in metrics], rows)


def channel_table(document: Document) -> Table | None:
    """The metrics of each channel by itself, where there are several."""
    keys = [k for k in document.keys if ":" in k and k.partition(":")[0] in document.metrics]
    if not keys:
        return None
    names = document.forecasters
    columns = {k: _column(document, k) for k in keys}
    rows = [(_named(document, k), [columns[k][n] for n in names]) for k in keys]
    return Table("By variable", "score", [(n, "") for n in names], rows)


def skill_table(document: Document) -> Table | None:
    """Skill of every model against every rival; what chance may explain is marked "unsure"."""
    row = document.skill
    rivals = list(dict.fromkeys(r for entries in row.values() for r in entries))
    if not rivals:
        return None
    rows = [(model, [_skill(entries.get(r)) for r in rivals]) for model, entries in row.items()]
    return Table("Skill against", "model", [(r, "%") for r in rivals], rows)


def lead_tables(document: Document) -> list[Table]:
    """Every number by lead time: one table a score, and one a model for its skill."""
    tables = [by_lead(document, with_bracket(*_head(document, k)), document.of_score(k)) for k in document.keys]
    for model, row in document.skill.items():
        known = {rival: entry for rival, entry in row.items() if entry.lead}
        if known:
            tables.append(by_lead(document, f"skill of {model} against", known))
    return tables


def concentration_table(document: Document) -> Table | None:
    """Concentration of values, each beside how far it is from the truth's."""
    return _beside_truth(document.concentration, "Concentration of values")


def warping_table(document: Document) -> Table | None:
    """Warping error: how far frames are from their predecessor moved along the truth's flow."""
    if document.warping is None:
        return None
    return _beside_truth(document.warping.errors, f"Warping error; flow by {document.warping.flow}")


def ways_table(document: Document) -> Table | None:
    """How far Gaussians end from where the optical flow takes their places."""
    if not document.ways:
        return None
    heads = [("moving places", "cells"), ("standing still there", "cells"), ("still places", "cells"), ("pruned", "%")]
    rows = [
        (
            name,
            [
                *(Cell(number(e.overall, 2)) for e in (w.error, w.standing_still, w.error_of_still)),
                Cell(percent(w.pruned)),
            ],
        )
        for name, w in document.ways.items()
    ]
    return Table("Ends of the ways of Gaussians, from where their places go", "model", heads, rows)


def probe_table(document: Document) -> Table | None:
    """What linear regressions read from latents and from the pixels under them."""
    if not document.probe:
        return None
    of, units = ("latents", "pixels"), "" if document.units == "1" else document.units
    heads = [("reconstruction", units)]
    heads += [(f"motion from {name}", "cells") for name in of] + [("standing still", "cells")]
    heads += [(f"next frame from {name}", units) for name in of] + [("persistence", units)]
    rows = []
    for name, found in document.probe.items():
        read = [value for one in (found.motion, found.following) for value in (one.latents, one.pixels, one.without)]
        rows.append((name, [Cell(number(value, 3)) for value in (found.reconstruction, *read)]))
    return Table("Linear probes of the last observed latents", "model", heads, rows)


def efficiency_table(document: Document) -> Table | None:
    """What each model costs."""
    entry = {name: row.to_json() for name, row in (document.efficiency or {}).items()}
    keys = [
        k
        for k in dict.fromkeys(k for row in entry.values() for k in row)
        if any(row[k] is not None for row in entry.values())
    ]
    if not keys:
        return None
    rows = [(label(k), [Cell(_amount(row.get(k))) for row in entry.values()]) for k in keys]
    return Table("Cost of a forecast", "", [(name, "") for name in entry], rows)


def lead_label(lead: float, units: str) -> str:
    """`6 h`, `3 d`, `2 months` or `0.33 s`."""
    if units == "seconds":
        return f"{lead:.2f} s"
    if units == "months":
        return str(Step(lead, "month"))
    return f"{lead:g} h" if lead < 72 or lead % 24 else f"{lead / 24:g} d"


def label(key: str) -> str:
    """A key of the document as words."""
    return LABELS.get(key, key.replace("_", " "))


def with_bracket(name: str, units: str) -> str:
    """`RMSE [K]`, or the name alone."""
    return f"{name} [{units}]" if units else name


def _alone(document: Document, model: str) -> Headline:
    """A headline without a rival: the first score."""
    metric = document.headline
    entry = document.scores[model].get(metric)
    value = None if entry is None else entry.overall
    text = f"{number(value, decimals([value]))} {document.units_of(metric)}".strip()
    sentence = f"{model} was compared with no baseline, so nothing is known of its skill."
    return Headline(model, None, text, f"{scores.title(metric)} over all lead times", sentence, "open")


def _margin(share: float, found: tuple[float, float] | None, what: str) -> str:
    return _interval(f"{percent(share)}\u00a0% {what}", found)


def _interval(text: str, found: tuple[float, float] | None) -> str:
    """A text, and after it the interval in brackets where there is one."""
    return f"{text} " + f"(95 %: {span(found)})".replace(" ", "\u00a0") if found else text


def _turned(found: tuple[float, float] | None) -> tuple[float, float] | None:
    return (-found[1], -found[0]) if found else None


def _named(document: Document, key: str) -> str:
    return with_bracket(*_head(document, key))


def _head(document: Document, key: str) -> tuple[str, str]:
    return scores.title(key), document.units_of(key)


def _column(document: Document, key: str) -> dict[str, Cell]:
    """Cells of one score by forecaster."""
    found = document.of_score(key)
    values = {name: found[name].overall if name in found else None for name in document.forecasters}
    places = decimals(values.values())
    best = _best(document, key, values)
    return {n: Cell(number(v, places), mark="best" if n in best else "") for n, v in values.items()}


def _best(document: Document, key: str, values: Mapping[str, Any]) -> set[str]:
    """Who has the best value, and who is as good as equal; nobody where there is no choice."""
    up, ideal = key.partition(":")[0] in document.higher_is_better, scores.ideal(key)
    known = {n: float(v) for n, v in values.items() if finite(v)}
    if len(known) < 2:
        return set()
    losses = {n: abs(v - ideal) if ideal is not None else -v if up else v for n, v in known.items()}
    least = min(losses.values())
    return {n for n, loss in losses.items() if loss - least <= SAME * abs(least)}


def _skill(entry: Skill | None) -> Cell:
    if entry is None or not finite(entry.overall):
        return Cell(NOTHING)
    found, overall = entry.bounds, entry.overall
    detail = span(found) if found else ""
    text = f"{'+' if overall > 0 else ''}{percent(overall)}"
    if entry.insignificant:
        return Cell(text, f"{detail}, n.s." if detail else "n.s.", "unsure")
    return Cell(text, detail, "best" if overall > 0 and found else "")


def by_lead(document: Document, caption: str, entries: Mapping[str, ByLead]) -> Table:
    """Rows of lead times, columns of entries, with intervals where they have some."""
    places = decimals(v for e in entries.values() for v in e.lead)
    rows = []
    for index, lead in enumerate(document.lead):
        cells = [Cell(number(e.lead[index], places), _between(e, index, places)) for e in entries.values()]
        rows.append((lead_label(lead, document.lead_units), cells))
    rows.append(("all", [Cell(number(e.overall, places)) for e in entries.values()]))
    return Table(caption, "lead time", [(name, "") for name in entries], rows)


def _between(entry: ByLead, index: int, places: int) -> str:
    if entry.low is None or entry.high is None:
        return ""
    return f"{number(entry.low[index], places)} to {number(entry.high[index], places)}"


def _beside_truth(sections: Mapping[str, Section] | None, caption: str) -> Table | None:
    """Rows of the truth and forecasters, columns of measures; relative distance from the truth under each."""
    entry = {name: section.to_json() for name, section in (sections or {}).items()}
    keys = [
        k
        for k in dict.fromkeys(k for row in entry.values() for k in row)
        if any(row[k] is not None for row in entry.values())
    ]
    if not keys:
        return None
    places = {k: decimals(row.get(k) for row in entry.values()) for k in keys}
    truth = entry.get("truth", {})
    rows = [
        (
            name,
            [
                Cell(number(row.get(k), places[k]), "" if row is truth else _apart(row.get(k), truth.get(k)))
                for k in keys
            ],
        )
        for name, row in entry.items()
    ]
    return Table(caption, "", [(label(k), "") for k in keys], rows)


def _apart(value: Any, truth: Any) -> str:
    if not (finite(value) and finite(truth)) or truth == 0:
        return ""
    share = value / truth - 1
    return f"{'+' if share > 0 else ''}{percent(share)}\u00a0%"


def _amount(value: Any) -> str:
    """A count in full, a measured number to four figures, a text as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value, 0 if float(value).is_integer() else decimals([value])) if finite(value) else NOTHING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_amount(v) for v in value)
    return NOTHING if value is None else str(value)
