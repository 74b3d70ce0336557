"""Charts of an evaluation, small enough for a phone: scores, skill, spectra and calibration.

Each returns a figure without a title; the page has the title.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.drawing.charts import (
    interval,
    lead_axis,
    lead_ticks,
    looks,
    numbers,
    score_lines,
    spread,
    with_units,
)
from pdr_cli.drawing.panels import DPI, FAINT, FONT, INK, MISSING, PAPER, plain
from pdr_cli.verification import scores
from pdr_cli.verification.document import Document
from pdr_cli.verification.sections import Calibration, Intervals, Spectra

if TYPE_CHECKING:
    from pdr_cli.verification.fans import Fan

INCHES = (4.2, 2.75)
BOX = (0.105, 0.155, 0.875, 0.735)  # left, bottom, width, height of the axes, as shares
TRUTH: dict[str, Any] = {"color": INK, "linewidth": 1.3, "zorder": 4}
FAN = 0.16  # opacity of a band, which lies on those of larger shares
HOLLOW: dict[str, Any] = {"linewidth": 1.2, "markerfacecolor": PAPER}
PAD = 0.005  # between the left edge and the widest label, as a share
SMALL, LARGE = 1e-3, 1e5  # ticks beyond are written with an exponent
NYQUIST = 2  # cells: the shortest wave a grid can carry


def against_lead(document: Document, metric: str) -> Any:
    """One score of all forecasters against lead time, intervals as bands."""
    figure, axes = _chart(with_units(scores.title(metric), document.units_of(metric)))
    score_lines(axes, document, metric)
    return _small(figure)


def skill(document: Document, rival: str) -> Any:
    """Skill of every model against one rival, by lead time, intervals as bands; 0 is as good as the rival."""
    figure, axes = _chart(f"skill against {rival}")
    lead, unit = lead_axis(document.lead, document.lead_units)
    looks_of = looks(document)
    axes.axhline(0, color=looks_of.get(rival, {}).get("color", FAINT), linewidth=1.2, zorder=1)
    for model, row in document.skill.items():
        if rival in row:
            interval(axes, lead, row[rival], looks_of[model]["color"])
            axes.plot(lead, numbers(row[rival].lead), **looks_of[model])
    lead_ticks(axes, lead, unit)
    return _small(figure)


def spectra(document: Document, entry: Spectra) -> Any:
    """Power against wavelength, both logarithmic, long waves at the left; the truth in ink."""
    units = f"{document.units}²" if document.units not in ("", "1") else ""
    figure, axes = _chart(with_units("power", units))
    length = numbers(entry.wavelength)
    for name, look in _with_truth(document, entry).items():
        power = numbers(entry.power[name] or ())
        axes.plot(length, np.where(power > 0, power, np.nan), label=name, **look | {"marker": None})
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(np.nanmax(length) * 1.05, np.nanmin(length) / 1.05)
    _power_axes(axes)
    axes.set_xlabel(f"wavelength [{entry.wavelength_units}]", fontsize=9, color=INK)
    return _small(figure)


def calibration(document: Document, entry: Mapping[str, Calibration]) -> Any:
    """How far forecasts are off on average where they forecast this much; bars show how often they do."""
    figure, axes = _chart(with_units("forecast − truth", document.units))
    looks_of = looks(document)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    counts = axes.twinx()
    for name, bins in entry.items():
        value, observed = numbers(bins.forecast), numbers(bins.observed)
        axes.plot(value, value - observed, **looks_of[name])
    _counts(counts, next(iter(entry.values())))
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    plain(axes)
    axes.set_xlabel(with_units("forecast value", document.units), fontsize=9, color=INK)
    return _small(figure)


def ranks(document: Document) -> Any:
    """The share of truths at each rank among the members, over that of a reliable ensemble."""
    figure, axes = _chart("share over that of a reliable ensemble")
    axes.axhline(1, color=INK, linewidth=0.8, zorder=1)
    for name, entry in (document.ranks or {}).items():
        share = numbers(entry.share) * len(entry.share)
        place = (np.arange(len(share)) + 0.5) / len(share)
        axes.plot(place, share, **looks(document)[name] | {"drawstyle": "steps-mid", "marker": None})
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    plain(axes)
    axes.set_xlabel("rank of the truth among the members, lowest to highest", fontsize=9, color=INK)
    return _small(figure)


def reliability(document: Document, entry: Mapping[str, Calibration]) -> Any:
    """How often an event happens where it is forecast with this probability; bars show how often it is."""
    figure, axes = _chart("share of cases with the event")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, zorder=1)
    counts = axes.twinx()
    for name, bins in entry.items():
        axes.plot(numbers(bins.forecast), numbers(bins.observed), **looks(document)[name])
    _counts(counts, next(iter(entry.values())))
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    plain(axes)
    axes.set_xlabel("forecast probability", fontsize=9, color=INK)
    return _small(figure)


def coverage(document: Document, name: str, found: Sequence[Intervals]) -> Any:
    """The share of truths inside the intervals of one model by lead time, and thin with hollow marks of adaptive ones."""
    figure, axes = _chart("share of truths inside")
    lead, unit = lead_axis(document.lead, document.lead_units)
    look = looks(document)[name]
    for one in found:
        axes.axhline(one.nominal, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(lead, numbers(one.coverage.lead), **look)
        if one.adaptive is not None:
            axes.plot(lead, numbers(one.adaptive.coverage.lead), **look | HOLLOW)
    axes.set_ylim(top=1)
    lead_ticks(axes, lead, unit)
    return _small(figure)


def fan(document: Document, one: Fan, name: str, labels: tuple[str, str], ends: tuple[float, float]) -> Any:
    """One cell against time: observed, truth and forecast, and bands where the truth is to lie.

    Args:
        document: for lead times and colours.
        one: what is drawn.
        name: of the model.
        labels: of the vertical axis and, "" for lead times, of the horizontal one.
        ends: of the vertical axis.
    """
    figure, axes = _chart(labels[0])
    step, look = document.lead[0], _look(document, name)
    every, unit = lead_axis([*(-step * np.arange(len(one.observed))[::-1]), *document.lead], document.lead_units)
    past, ahead = every[: len(one.observed)], every[len(one.observed) - 1 :]
    axes.axvline(0, color=FAINT, linewidth=0.6, zorder=1)
    for band in one.bands.values():
        low, high = (np.append(one.observed[-1], end) for end in band)
        axes.fill_between(ahead, low, high, color=look["color"], alpha=FAN, linewidth=0, zorder=1)
    _band_labels(axes, one, ahead[-1] + 0.02 * np.ptp(every), look["color"], ends)
    of_forecast = f"mean of {one.members} members" if one.members else name
    later = {"marker": "o", "markersize": 4, "markevery": slice(1, None)}  # the last observation has its own mark
    axes.plot(past, one.observed, label="observed", **TRUTH | later | {"markevery": None})
    axes.plot(
        ahead, np.append(one.observed[-1], one.truth), label="truth", **TRUTH | later | {"markerfacecolor": PAPER}
    )
    axes.plot(ahead, np.append(one.observed[-1], one.forecast), label=of_forecast, **later | look)
    lead_ticks(axes, np.array([np.ptp(every)]), unit)
    axes.set_xlim(past[0] - 0.03 * np.ptp(every), ahead[-1] + 0.11 * np.ptp(every))
    axes.set_ylim(*ends)
    if labels[1]:
        axes.set_xlabel(f"{unit} after {labels[1]}", fontsize=9, color=INK)
    return _small(figure)


def _look(document: Document, name: str) -> dict[str, Any]:
    """The line style of a model, of one that is part of an ensemble that of the first forecaster."""
    looks_of = looks(document)
    return looks_of.get(name) or next(iter(looks_of.values()))


def _band_labels(axes: Any, one: Fan, place: float, color: str, ends: tuple[float, float]) -> None:
    """The share of each band at the right of its upper end."""
    heights = spread([float(band[1, -1]) for band in one.bands.values()], 0.07 * (ends[1] - ends[0]))
    for share, height in zip(one.bands, heights, strict=True):
        axes.text(place, height, f"{100 * share:.0f} %", color=color, fontsize=8.5, va="center", fontfamily=FONT)


def captioned(figure: Any, document: Document, title: str, note: str = "", own: bool = False) -> Any:
    """The same figure for use by itself: a title above it, and below it who is who, of its `own` lines or of all forecasters."""
    from matplotlib.lines import Line2D

    truth = {"truth": TRUTH} if any(line.get_label() == "truth" for line in figure.axes[0].lines) else {}
    looks_of = looks(document) | truth
    handles = [Line2D([], [], label=name, **look) for name, look in looks_of.items()]
    handles = figure.axes[0].get_legend_handles_labels()[0] if own else handles
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.01, 0), ncols=2, frameon=False, fontsize=8.5)
    figure.text(0, 1.14, title, fontsize=11, weight="bold", color=INK, va="top", fontfamily=FONT)
    figure.text(0, 1.06, note, fontsize=8, color=FAINT, va="top", fontfamily=FONT)
    return figure


def _chart(label: str) -> tuple[Any, Any]:
    """An empty figure; the name of its vertical axis stands above it, where it costs no width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
    axes = figure.add_axes(BOX)
    axes.set_facecolor("none")
    figure.text(0, 0.985, label, fontsize=9, color=INK, va="top", fontfamily=FONT)
    return figure, axes


def _small(figure: Any) -> Any:
    """The type sizes of a small chart."""
    for axes in figure.axes:
        axes.tick_params(which="both", labelsize=8.5)
        axes.xaxis.label.set_size(9)
        axes.xaxis.labelpad = 3
    axes = figure.axes[0]
    if axes.get_yscale() == "linear" and not SMALL <= max(map(abs, axes.get_ylim())) < LARGE:
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    _room_for_labels(figure, axes)
    return figure


def _short(value: float) -> str:
    """`1.2e−5`, `3e8` or 0: a tick that needs no common factor above the axis, where its name stands."""
    digits, _, exponent = f"{value:.3e}".partition("e")
    digits = digits.rstrip("0").rstrip(".")
    return "0" if digits in ("0", "-0") else f"{digits}e{int(exponent)}".replace("-", "−")


def _room_for_labels(figure: Any, axes: Any) -> None:
    """Move the left edge so that the widest tick label just fits, be it 2 or −0.00025."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    reach = axes.bbox.x0 - axes.yaxis.get_tightbbox().x0
    left = reach / figure.bbox.width + PAD
    for one in figure.axes:
        one.set_position((left, BOX[1], BOX[0] + BOX[2] - left, BOX[3]))


def _with_truth(document: Document, entry: Spectra) -> dict[str, dict[str, Any]]:
    """Looks of the truth, then of the forecasters drawn."""
    looks_of = {"truth": TRUTH} | looks(document)
    return {name: look for name, look in looks_of.items() if entry.power.get(name)}


def _power_axes(axes: Any) -> None:
    """Ticks at powers of two cells and of ten: 64, 32, …; 10⁻², 1, 10²."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    plain(axes)
    axes.xaxis.set_major_locator(FixedLocator([float(NYQUIST**n) for n in range(1, 14)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _power_of_ten(value: float) -> str:
    exponent = round(math.log10(value))
    if -2 <= exponent <= 3:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _counts(axes: Any, bins: Calibration) -> None:
    """Faint bars along the bottom: how many cells each bin of the first forecaster has."""
    value, count = numbers(bins.forecast), numbers(bins.count)
    width = 0.8 * float(np.nanmedian(np.diff(value))) if len(value) > 1 else 1.0
    axes.bar(value, np.nan_to_num(count), width=width, color=MISSING, zorder=0)
    axes.set_ylim(0, 5 * max(float(np.nanmax(count)), 1.0))
    axes.set_axis_off()
