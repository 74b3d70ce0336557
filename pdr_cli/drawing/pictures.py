"""Pictures of forecasts: what was predicted beside what happened, and what a forecast is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, read_frames
from pdr_cli.drawing.charts import curves, skill, with_units
from pdr_cli.drawing.panels import (
    FAINT,
    Grid,
    Sheet,
    colors,
    fixed_ends,
    grid_of,
    lead_labels,
    plain,
    quantity,
    shared_limits,
    symmetric_limits,
)

__all__ = ["curves", "forecast", "layers", "skill"]

LEADS = 5  # columns that are still legible side by side
BLOCKS = 2  # channels drawn one under the other; of more, only the first
DIVERGING = "RdBu_r"
POSITIVE, NEGATIVE = "#e4572e", "#2f7dc1"


def forecast(
    path: Path,
    observed: Series,
    predicted: Series,
    truth: Series | None = None,
    coarse: np.ndarray | None = None,
    *,
    model: str = "",
) -> None:
    """Draw a forecast after its last observation; with `truth` also what happened and the error.

    Args:
        path: PNG to write.
        observed: frames that the forecast was made from; the last one is drawn.
        predicted: τ frames.
        truth: the frames that followed, at the same times.
        coarse: the forecast before the Gaussians were fused in: [τ, C, H, W].
        model: what to call the model in the title.
    """
    which = chosen_leads(predicted.sizes["time"], LEADS)
    count = len(names(observed)) if len(names(observed)) <= BLOCKS else 1
    against = ["truth", "error"] if truth is not None else ["change"] * bool(observed.notnull().any())
    rows = ["forecast"] + ["coarse"] * (coarse is not None) + against
    sheet = Sheet(len(rows) * count, 1 + len(which), grid_of(observed), *_titles(observed, model, count), apart=True)
    for channel in range(count):
        last = _last(observed, channel)
        frames = {"forecast": predicted.values[which, channel]}
        if coarse is not None:
            frames["coarse"] = coarse[which, channel]
        if "change" in against:
            frames["change"] = frames["forecast"] - last
        if truth is not None:
            frames["truth"] = truth.values[which, channel]
            frames["error"] = frames["forecast"] - frames["truth"]
        top, bottom = channel * len(rows), (channel + 1) * len(rows) - 1
        _block(sheet, top, observed, channel, last, frames)
        _lead_headings(sheet, top, observed, predicted, which)
        if truth is not None:
            units = quantity(observed, channel)[1]
            _error_headings(sheet, bottom, frames, last, units)
            _error_growth(sheet, bottom, last, predicted.values[:, channel], truth.values[:, channel], units)
    sheet.save(path)


def layers(
    path: Path,
    observed: Series,
    fused: Series,
    coarse: np.ndarray,
    painted: np.ndarray,
    gaussians: Mapping[str, np.ndarray],
    truth: Series | None = None,
    lead: int = -1,
) -> None:
    """Draw what one frame of a forecast is made of: first channel, on the observed series' grid.

    Args:
        path: PNG to write.
        observed: frames that the forecast was made from.
        fused: the forecast, τ frames.
        coarse: the forecast without Gaussians, data units: [τ, C, H, W].
        painted: the Gaussian layer, network units: [τ, C, H, W].
        gaussians: those of frame `lead`: `x`, `y`, `sigma_1`, `sigma_2` in cells (x right, y down the rows),
            `rotation` in radian from +x towards +y, each [N]; `amplitude` [N, C], or of those that carry `opacity`,
            `start_x` and `start_y` [N].
        truth: the frames that followed.
        lead: which of the τ frames.
    """
    values = {"last input": _last(observed, 0)}
    if truth is not None:
        values["truth"] = truth.values[lead, 0]
    values |= {"coarse forecast": coarse[lead, 0], "fused forecast": fused.values[lead, 0]}
    differences = {"fused − coarse": values["fused forecast"] - values["coarse forecast"]}
    if truth is not None:
        differences["fused − truth"] = values["fused forecast"] - values["truth"]
    label = _leads(observed, fused)[lead]
    title, about = _titles(observed, "", 1, "Layers of the forecast")
    sheet = Sheet(2, max(len(values), 2 + len(differences)), grid_of(observed), title, f"{about}, {label}")
    name, units = quantity(observed, 0)
    limits = shared_limits(list(values.values()), *fixed_ends(observed))
    for column, (text, frame) in enumerate(values.items()):
        image = sheet.panel(0, column, frame, colors(observed), limits, longitudes=False)
        sheet.heading(0, column, text, _label(*((observed, -1) if column == 0 else (fused, lead))))
    sheet.bar(0, image, with_units(name, units), limits)
    _layer_row(sheet, painted[lead, 0], values["fused forecast"], gaussians)
    apart = symmetric_limits(list(differences.values()))
    for column, (text, frame) in enumerate(differences.items(), start=2):
        image = sheet.panel(1, column, frame, DIVERGING, apart)
        sheet.heading(1, column, text, f"RMS {_rms(frame):.3g} {units}".strip())
    sheet.bar(1, image, with_units("difference", units), apart)
    sheet.save(path)


def chosen_leads(total: int, most: int) -> list[int]:
    """At most `most` of `total` frames, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(total, most))})


def outlines(gaussians: Mapping[str, np.ndarray], points: int = 40) -> np.ndarray:
    """The 1 σ ellipse of each Gaussian, in cells: [N, points, (x, y)].

    The first axis is turned by `rotation` from +x towards +y, which points down the rows.
    """
    turn = np.linspace(0, 2 * np.pi, points)
    along = gaussians["sigma_1"][:, None] * np.cos(turn)  # [N, points]
    across = gaussians["sigma_2"][:, None] * np.sin(turn)
    cos, sin = np.cos(gaussians["rotation"])[:, None], np.sin(gaussians["rotation"])[:, None]
    x = gaussians["x"][:, None] + along * cos - across * sin
    y = gaussians["y"][:, None] + along * sin + across * cos
    return np.stack([x, y], axis=-1)


def rmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Over the cells that both have, unweighted; NaN if there are none."""
    return _rms(predicted - truth)


def _rms(frame: np.ndarray) -> float:
    known = frame[np.isfinite(frame)]
    return float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if known.size else float("nan")


def _last(observed: Series, channel: int) -> np.ndarray:
    """The last observed frame: [H, W]."""
    end = observed.sizes["time"]
    return read_frames(observed, end - 1, end)[0, channel]


def _titles(observed: Series, model: str, count: int, what: str = "Forecast") -> tuple[str, str]:
    shown = names(observed)
    attrs = observed.attrs["variables"].get(shown[0], {})
    if count == 1:
        title = f"{what} of {attrs.get('long_name', shown[0])}"
    else:
        title = f"{what} of {' and '.join(shown)}"
    about = [model] if model else []
    if len(shown) > count:
        about.append(f"{shown[0]}, the first of {len(shown)} channels")
    about.append(f"init {_label(observed, -1)}")
    return title, ", ".join(about)


def _label(series: Series, index: int) -> str:
    return time_axis.label(series.time.values[index])


def _block(
    sheet: Sheet, top: int, observed: Series, channel: int, last: np.ndarray, frames: dict[str, np.ndarray]
) -> None:
    """The rows of one channel: values on one scale, the difference below them on its own."""
    difference = next((row for row in ("error", "change") if row in frames), "")
    fields = [row for row in frames if row != difference]
    name, units = quantity(observed, channel)
    limits = shared_limits([last, *(frames[f] for f in fields)], *fixed_ends(observed))
    beside = (len(fields) if difference == "error" else len(frames)) - 1  # rows that the observation is centred on
    image = sheet.panel(top + beside / 2, 0, last, colors(observed), limits)
    sheet.heading(
        top + beside / 2, 0, f"last {name}" if len(names(observed)) > 1 else "last observation", _label(observed, -1)
    )
    sheet.bar(top, image, with_units(name, units), limits, rows=len(fields))
    apart = symmetric_limits([frames[difference]]) if difference else limits
    for row, text in enumerate(frames, start=top):
        cmap, scale = (DIVERGING, apart) if text == difference else (colors(observed), limits)
        sheet.name(row, text)
        for column, frame in enumerate(frames[text], start=1):
            image = sheet.panel(row, column, frame, cmap, scale, longitudes=text == (difference or fields[-1]))
    meaning = "forecast − truth" if difference == "error" else "change since last"
    if difference:
        sheet.bar(row, image, with_units(meaning, units), apart)


def _lead_headings(sheet: Sheet, row: int, observed: Series, predicted: Series, which: list[int]) -> None:
    labels = _leads(observed, predicted)
    for column, index in enumerate(which, start=1):
        sheet.heading(row, column, labels[index], _label(predicted, index))


def _leads(observed: Series, predicted: Series) -> list[str]:
    times = np.concatenate([observed.time.values[-2:], predicted.time.values])
    return lead_labels(observed.time.values[-1], predicted.time.values, time_axis.find_step(times))


def _error_headings(sheet: Sheet, row: int, frames: dict[str, np.ndarray], last: np.ndarray, units: str) -> None:
    """RMSE of each lead above its error, and that of copying the last frame."""
    for column, (guess, real) in enumerate(zip(frames["forecast"], frames["truth"], strict=True), start=1):
        sheet.heading(
            row, column, f"RMSE {rmse(guess, real):.3g} {units}".strip(), f"persistence {rmse(last, real):.3g}"
        )


def _error_growth(
    sheet: Sheet, row: int, last: np.ndarray, predicted: np.ndarray, truth: np.ndarray, units: str
) -> None:
    """RMSE at every lead, not only those drawn, under the last observation; arrays [τ, H, W]."""
    left, bottom, width, height = sheet.box(row, 0)
    axes = sheet.axes((left, bottom, width, height))
    leads = np.arange(1, len(truth) + 1)
    mine = [rmse(p, t) for p, t in zip(predicted, truth, strict=True)]
    copied = [rmse(last, t) for t in truth]
    axes.plot(leads, copied, color=FAINT, linewidth=1.2, marker="o", markersize=2.5)
    axes.plot(leads, mine, color=POSITIVE, linewidth=1.8, marker="o", markersize=3)
    axes.set_ylim(0, 1.6 * max(float(np.nanmax([*mine, *copied, 0.0])), 1e-12))
    axes.set_xlim(leads[0] - 0.4, leads[-1] + 0.4)
    plain(axes)
    axes.set_xlabel("frames ahead", fontsize=8, color=FAINT, labelpad=2)
    sheet.heading(row, 0, f"RMSE [{units}]" if units else "RMSE")
    for text, color, height in (("forecast", POSITIVE, 0.97), ("persistence", FAINT, 0.85)):
        axes.text(0.03, height, text, color=color, fontsize=8, transform=axes.transAxes, va="top", weight="bold")


def _layer_row(sheet: Sheet, painted: np.ndarray, frame: np.ndarray, gaussians: Mapping[str, np.ndarray]) -> None:
    """The Gaussian layer by itself, and its Gaussians over the frame they were painted into."""
    strength = symmetric_limits([painted])
    sheet.panel(1, 0, painted, DIVERGING, strength)
    sheet.heading(1, 0, "Gaussian layer", f"network units, ± {strength.high:.3g}")
    image = sheet.panel(1, 1, frame, "gray", shared_limits([frame]))
    image.set_alpha(0.45)  # a pale ground, on which the ellipses stand out
    draw_ellipses(image.axes, sheet.grid, gaussians)
    carried = "start_x" in gaussians
    sheet.heading(1, 1, f"{len(gaussians['x'])} Gaussians, 1 σ", "and their ways" if carried else "+ red, − blue")


def draw_ellipses(axes: Any, grid: Grid, gaussians: Mapping[str, np.ndarray], channel: int = 0) -> None:
    """Outline Gaussians on axes of `grid`: red where they add to `channel`, blue where they take away.

    Of Gaussians that carry, those stand out that have come far, and the blue lines are their ways.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    carried = "start_x" in gaussians
    if carried:
        far = np.hypot(gaussians["x"] - gaussians["start_x"], gaussians["y"] - gaussians["start_y"])
    amplitude = gaussians["opacity"] * far if carried else gaussians["amplitude"][:, channel]
    order = np.argsort(np.abs(amplitude))  # the strongest on top
    colors = [
        (*to_rgb(POSITIVE if a >= 0 else NEGATIVE), o) for a, o in zip(amplitude, opacity(amplitude), strict=True)
    ]
    lines = grid.place(outlines(gaussians))
    axes.add_collection(
        LineCollection([lines[i] for i in order], colors=[colors[i] for i in order], linewidths=0.9), autolim=False
    )
    if carried:
        ends = [np.stack([gaussians[f"start_{axis}"], gaussians[axis]], axis=-1) for axis in ("x", "y")]
        ways = grid.place(np.stack(ends, axis=-1))  # [N, 2, 2]
        axes.add_collection(LineCollection(list(ways), colors=[to_rgb(NEGATIVE)], linewidths=0.9), autolim=False)


def opacity(amplitude: np.ndarray) -> np.ndarray:
    """0.08 to 1 by |amplitude|; the strongest twentieth are all opaque."""
    strength = np.abs(amplitude)
    return np.clip(strength / max(float(np.quantile(strength, 0.95)), 1e-12), 0.08, 1.0)
