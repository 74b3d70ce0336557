"""Charts: losses while training, and error against lead time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.drawing.panels import DPI, FAINT, FONT, INK, plain, save
from pdr_cli.verification import scores
from pdr_cli.verification.document import Document
from pdr_cli.verification.sections import ByLead

# Okabe and Ito's colours, told apart by colour-blind readers too; markers and dashes say it a second time.
MODELS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#a08000")
MARKERS = ("o", "s", "^", "D", "v", "P")
REFERENCES = ("#6b7381", "#9aa1ac", "#b9985a", "#7d9189")  # quieter than any model
DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 1)))
BAND = 0.16  # opacity of an interval
SMOOTHING = 40  # the thick line is a mean over about a fortieth of the run
LOG_FROM = 8.0  # a loss that falls by more than this reads better on a logarithmic axis


def curves(path: Path, metrics: Path) -> None:
    """Draw the losses and the learning rate of a run.

    Args:
        path: PNG to write.
        metrics: the run's log, a JSON object a line with `event` "step", "validation" or "finished".
    """
    from matplotlib.figure import Figure

    log = read_log(metrics)
    steps, checks = log["step"], log["validation"]
    figure = Figure(figsize=(8.0, 5.0), dpi=DPI, facecolor="white")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    figure.subplots_adjust(left=0.095, right=0.965, top=0.86, bottom=0.11, hspace=0.12)
    if steps:
        at, values = _column(steps, "step"), _column(steps, "loss")
        loss.plot(at, values, color=MODELS[1], linewidth=0.7, alpha=0.35)
        loss.plot(at, smoothed(values, len(values) / SMOOTHING), color=MODELS[1], linewidth=2, label="training")
        rate.plot(at, _column(steps, "lr"), color=FAINT, linewidth=1.4)
        rate.fill_between(at, _column(steps, "lr"), color=FAINT, alpha=0.15, linewidth=0)
        rate.set_ylim(0)
    if checks:
        _validation(loss, checks)
    every = _column(steps + checks, "loss")
    known = every[np.isfinite(every)]
    if known.size and known.min() > 0 and known.max() > LOG_FROM * known.min():
        _logarithmic(loss)
    for axes, name in ((loss, "loss"), (rate, "learning rate")):
        plain(axes)
        axes.set_ylabel(name, fontsize=9, color=INK)
    if steps or checks:
        loss.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    rate.yaxis.get_offset_text().set(size=7.5, color=FAINT)
    rate.set_xlabel("step", fontsize=9, color=INK)
    _title(figure, "Training", _story(log))
    save(figure, path)


def skill(path: Path, document: Document) -> None:
    """Draw error against lead time of models and baselines, each line labelled at its end.

    Args:
        path: PNG to write.
        document: its headline score is drawn.
    """
    from matplotlib.figure import Figure

    score = document.headline
    figure = Figure(figsize=(7.6, 4.6), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.09, 0.125, 0.66, 0.70))
    lead, lines = score_lines(axes, document, score)
    overall = {name: entry.overall for name, entry in document.of_score(score).items()}
    _label_ends(axes, lead, lines, looks(document), overall)
    axes.set_ylabel(with_units(scores.title(score), document.units_of(score)), fontsize=9, color=INK)
    _title(figure, f"{scores.title(score)} against lead time", _about(document))
    save(figure, path)


def score_lines(axes: Any, document: Document, score: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw one score of every forecaster against lead time, with its interval where the document has one.

    Returns:
        The lead times drawn, and {forecaster: values}, NaN where there is none.
    """
    rows = document.of_score(score)
    lead, unit = lead_axis(document.lead, document.lead_units)
    lines = {name: numbers(row.lead) for name, row in rows.items()}
    looks_of = looks(document)
    for name, values in lines.items():
        interval(axes, lead, rows[name], looks_of[name]["color"])
        axes.plot(lead, values, **looks_of[name])
    lead_ticks(axes, lead, unit)
    ends = [
        v for row in rows.values() for values in (row.lead, row.high or ()) for v in numbers(values) if np.isfinite(v)
    ]
    ideal = scores.ideal(score)
    if ends and min(ends) >= 0 and ideal is None and not scores.higher_is_better(score):
        axes.set_ylim(0, 1.08 * max(ends) or 1)
    if ideal is not None:
        axes.axhline(ideal, color=FAINT, linewidth=0.8, zorder=0)
    return lead, lines


def interval(axes: Any, at: np.ndarray, entry: ByLead, color: str) -> None:
    """Shade the interval of an entry that has one."""
    if entry.low is not None and entry.high is not None:
        axes.fill_between(at, numbers(entry.low), numbers(entry.high), color=color, alpha=BAND, linewidth=0)


def numbers(values: Sequence[Any]) -> np.ndarray:
    """Values as an array; NaN for None and infinity."""
    found = np.array([np.nan if v is None else v for v in values], dtype=float)
    return np.where(np.isfinite(found), found, np.nan)


def with_units(name: str, units: str) -> str:
    """`RMSE [K]`, or the name alone."""
    return f"{name} [{units}]" if units not in ("", "1") else name


def lead_ticks(axes: Any, lead: np.ndarray, unit: str) -> None:
    """Ticks at whole lead times, and their name."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    plain(axes)
    if unit == "hours":
        axes.xaxis.set_major_locator(MultipleLocator(hour_ticks(float(lead.max()))))
    if unit == "months":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"lead time [{unit}]", fontsize=9, color=INK)


def read_log(metrics: Path) -> dict[str, list[dict[str, Any]]]:
    """Entries of a run's log by event; a half-written last line is left out."""
    entries: dict[str, list[dict[str, Any]]] = {"step": [], "validation": [], "finished": []}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        entries.setdefault(str(entry.get("event")), []).append(entry)
    return entries


def smoothed(values: np.ndarray, width: float) -> np.ndarray:
    """Mean over a Gaussian window of `width` entries (1 σ); at the ends over what is there."""
    if width < 1 or len(values) < 3:
        return values
    reach = min(int(3 * width), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total = np.convolve(values, kernel, "full")[reach : reach + len(values)]
    return np.asarray(total / np.convolve(np.ones(len(values)), kernel, "full")[reach : reach + len(values)])


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Heights moved as little as needed to be `gap` apart, in the same order."""
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, dtype=float)[order]
    groups = [[h, 1] for h in placed]  # [centre, members]; neighbours that touch become one group
    at = 1
    while at < len(groups):
        (low, few), (high, many) = groups[at - 1], groups[at]
        if high - low >= gap * (few + many) / 2 - 1e-12:
            at += 1
            continue
        groups[at - 1 : at + 1] = [[(low * few + high * many) / (few + many), few + many]]
        at = max(1, at - 1)
    moved = np.concatenate([c + gap * (np.arange(n) - (n - 1) / 2) for c, n in groups]) if groups else placed
    out = np.empty_like(placed)
    out[order] = moved
    return out


def lead_axis(lead: Sequence[float], units: str) -> tuple[np.ndarray, str]:
    """Lead times and their unit, in days where hours would be many."""
    values = np.asarray(lead, dtype=float)
    return (values / 24, "days") if units == "hours" and values.max() > 96 else (values, units)


def hour_ticks(longest: float) -> int:
    """Hours between ticks: a part of a day that gives at most eight, rather than tens."""
    return next((h for h in (1, 2, 3, 6, 12) if longest <= 8 * h), 24)


def _logarithmic(axes: Any) -> None:
    """A logarithmic y axis whose ticks read 0.1, 0.2, 0.5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _column(entries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([e.get(key, np.nan) for e in entries], dtype=float)


def _validation(axes: Any, checks: list[dict[str, Any]]) -> None:
    """Validation losses, the best one marked with its value."""
    at, values = _column(checks, "step"), _column(checks, "loss")
    axes.plot(at, values, color=MODELS[0], linewidth=1.3, marker="o", markersize=4, label="validation")
    if not np.isfinite(values).any():
        return
    best = int(np.nanargmin(values))
    axes.plot(at[best], values[best], marker="o", markersize=11, markerfacecolor="none", color=INK, linewidth=0)
    right = at[best] > 0.5 * at[-1]
    axes.annotate(
        f"best {values[best]:.4g}", (at[best], values[best]), (-12 if right else 12, 14), textcoords="offset points",
        ha="right" if right else "left", fontsize=9, color=INK, weight="bold",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _story(log: Mapping[str, list[dict[str, Any]]]) -> str:
    entries = [e for event in ("step", "validation", "finished") for e in log[event]]
    if not entries:
        return "nothing logged yet"
    last = max(entries, key=lambda e: e["step"])
    story = [f"{last['step']:,} steps in {_clock(max(e.get('seconds', 0) for e in entries))}"]
    if log["validation"]:
        best = min(log["validation"], key=lambda e: e["loss"])
        story.append(f"best validation loss {best['loss']:.4g} at step {best['step']:,}")
    if not log["finished"]:
        story.append("not finished")
    return "; ".join(story)


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _about(document: Document) -> str:
    period = document.period if isinstance(document.period, str) else " to ".join(document.period)
    windows = f"{document.n_windows} {document.split} windows".replace("  ", " ")
    return "; ".join(part for part in (", ".join(document.variables), windows, period) if part)


def looks(document: Document) -> dict[str, dict[str, Any]]:
    """Line styles of the forecasters, alike in every chart: models in colour and solid, baselines gray and dashed."""
    rest = document.baselines
    models = [name for name in document.forecasters if name not in rest]
    loud = {
        n: {"color": _nth(MODELS, i), "linewidth": 2.2, "zorder": 3, "marker": _nth(MARKERS, i), "markersize": 4}
        for i, n in enumerate(models)
    }
    return loud | {
        n: {"color": _nth(REFERENCES, i), "linewidth": 1.6, "linestyle": _nth(DASHES, i)} for i, n in enumerate(rest)
    }


def _nth(values: Sequence[Any], index: int) -> Any:
    return values[index % len(values)]


def _label_ends(
    axes: Any,
    lead: np.ndarray,
    lines: Mapping[str, np.ndarray],
    looks_of: Mapping[str, Any],
    overall: Mapping[str, Any],
) -> None:
    low, high = axes.get_ylim()
    ends = {n: float(v[-1]) if np.isfinite(v[-1]) else low for n, v in lines.items()}
    # A name and the overall score under it take about a ninth of the axis.
    heights = spread(list(ends.values()), 0.115 * (high - low))
    for (name, end), height in zip(ends.items(), heights, strict=True):
        style = {"color": looks_of[name]["color"], "fontfamily": FONT, "annotation_clip": False}
        options = {"textcoords": axes.get_yaxis_transform(), "va": "center"}
        axes.annotate(
            name, (lead[-1], end), (1.035, height + 0.02 * (high - low)), **options, **style, fontsize=10, weight="bold",
            arrowprops={"arrowstyle": "-", "color": looks_of[name]["color"], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
        axes.annotate(
            f"overall {_short(overall[name])}", (lead[-1], end), (1.035, height - 0.03 * (high - low)), **options,
            **(style | {"color": FAINT}), fontsize=8,
        )  # fmt: skip


def _short(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and np.isfinite(value) else "–"


def _title(figure: Any, title: str, detail: str) -> None:
    width, height = figure.get_size_inches()
    left = 0.25 / width
    figure.text(left, 1 - 0.16 / height, title, fontsize=13, weight="bold", color=INK, va="top", fontfamily=FONT)
    figure.text(left, 1 - 0.44 / height, detail, fontsize=9, color=FAINT, va="top", fontfamily=FONT)
