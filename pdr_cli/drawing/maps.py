"""Single panels for a page: one frame on its grid, and the colour bar that all frames of a kind share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data.series import Series, names
from pdr_cli.drawing import panels, pictures
from pdr_cli.drawing.charts import with_units
from pdr_cli.drawing.panels import DPI, FAINT, INK, Grid, Limits

AREA = 3.8  # square inches of a panel, whatever its shape
LEFT, BOTTOM, EDGE = 0.47, 0.27, 0.21  # inches: room for latitudes, for longitudes, and for half of one
LINE = 0.01  # inches: room for the frame's line
BAR = (3.4, 0.5)  # inches
TICKS = 3
TOP, SIDE = 0.27, 0.75  # inches: room for a name above, and for a colour bar with its numbers
VECTORS = 600  # more ellipses than this are drawn as a picture


@dataclass(frozen=True)
class View:
    """What of a frame [C, H, W] is drawn: one channel, or the three colours of a video as a picture."""

    name: str
    units: str
    channel: int | None
    cmap: str
    ends: tuple[float | None, float | None]

    def of(self, frame: np.ndarray) -> np.ndarray:
        """[H, W], or [H, W, 3] of 0 to 1 for a picture in colour."""
        if self.channel is not None:
            return np.asarray(frame[self.channel])
        return np.clip(np.moveaxis(frame, 0, -1) / 255, 0, 1)

    def difference(self, frame: np.ndarray, other: np.ndarray) -> np.ndarray:
        """[H, W]; of a picture in colour, the mean over its colours."""
        apart = frame - other
        return np.asarray(apart.mean(axis=0) if self.channel is None else apart[self.channel])


def views_of(series: Series) -> list[View]:
    """Both channels of two, all colours of a video at once, the first of many channels."""
    channels, cmap, ends = names(series), panels.colors(series), panels.fixed_ends(series)
    if kinds.of(series).pictures and len(channels) == 3:
        return [View("colour", "", None, cmap, ends)]
    shown = range(len(channels) if len(channels) <= pictures.BLOCKS else 1)
    return [View(*panels.quantity(series, c), c, cmap, ends) for c in shown]


def panel(grid: Grid, frame: np.ndarray, cmap: str, limits: Limits) -> Any:
    """A figure of one frame [H, W] or [H, W, 3] with its coordinates."""
    figure, axes = _canvas(grid)
    image = panels.draw(axes, grid, frame, cmap, limits, "none")
    if image.get_array().ndim < 3 and type(image).__name__ == "QuadMesh":
        image.set_rasterized(True)  # one path a cell would be megabytes
    _dress(axes, grid)
    return figure


def ellipses(grid: Grid, frame: np.ndarray, gaussians: Mapping[str, np.ndarray], channel: int) -> Any:
    """A figure of the Gaussians, 1 σ, over the pale frame [H, W] that they were painted into."""
    figure = panel(grid, frame, "gray", panels.shared_limits([frame]))
    axes = figure.axes[0]
    axes.set_facecolor("white")
    next(iter(axes.images or axes.collections)).set_alpha(0.4)  # the frame: coastlines are a collection too
    pictures.draw_ellipses(axes, grid, gaussians, channel)
    if len(gaussians["x"]) > VECTORS:
        axes.collections[-1].set_rasterized(True)
    return figure


def bar(cmap: str, limits: Limits, label: str, units: str) -> Any:
    """A figure of a lying colour bar, its label above it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=BAR, dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.02, 0.42, 0.95, 0.2))
    mapped = ScalarMappable(Normalize(limits.low, limits.high), cmap)
    drawn = figure.colorbar(mapped, cax=axes, extend=limits.extend, orientation="horizontal")
    drawn.outline.set_visible(False)
    axes.collections[0].set_rasterized(True)  # one path a colour would show seams
    axes.tick_params(labelsize=8.5, length=2, color=FAINT, labelcolor=FAINT)
    figure.text(0, 0.94, with_units(label, units), fontsize=9, color=INK, va="top", fontfamily=panels.FONT)
    return figure


def errors(grid: Grid, frame: np.ndarray, about: tuple[str, str], signed: bool) -> Any:
    """A figure of a score of each cell [H, W], with its colour bar; `about`: its name and units."""
    from matplotlib.figure import Figure

    limits = panels.symmetric_limits([frame]) if signed else panels.shared_limits([frame], floor=0.0)
    width = float(np.sqrt(AREA / grid.ratio))
    left = LINE if grid.x is None else LEFT
    whole = (left + width + SIDE, TOP + width * grid.ratio + BOTTOM)
    figure = Figure(figsize=whole, dpi=DPI, facecolor="white")
    height = width * grid.ratio / whole[1]
    axes = figure.add_axes((left / whole[0], BOTTOM / whole[1], width / whole[0], height))
    image = panels.draw(axes, grid, frame, "RdBu_r" if signed else "magma", limits, "none")
    if type(image).__name__ == "QuadMesh":
        image.set_rasterized(True)
    _dress(axes, grid)
    place = ((left + width + EDGE / 2) / whole[0], BOTTOM / whole[1], 0.12 / whole[0], height)
    drawn = figure.colorbar(image, cax=figure.add_axes(place), extend=limits.extend)
    drawn.outline.set_visible(False)
    drawn.ax.collections[0].set_rasterized(True)  # one path a colour would show seams
    drawn.ax.tick_params(labelsize=8.5, length=2, color=FAINT, labelcolor=FAINT)
    figure.text(0, 1, with_units(*about), fontsize=9, color=INK, va="top", fontfamily=panels.FONT)
    return figure


def _canvas(grid: Grid) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    width = float(np.sqrt(AREA / grid.ratio))
    height = width * grid.ratio
    left, bottom = (LINE, LINE) if grid.x is None else (LEFT, BOTTOM)
    right, top = (LINE, LINE) if grid.x is None else (EDGE, EDGE / 3)
    whole = (left + width + right, bottom + height + top)
    figure = Figure(figsize=whole, dpi=DPI, facecolor="white")
    return figure, figure.add_axes((left / whole[0], bottom / whole[1], width / whole[0], height / whole[1]))


def _dress(axes: Any, grid: Grid) -> None:
    panels.dress(axes, grid, left=True, bottom=True, ticks=TICKS)
    axes.tick_params(labelsize=8.5, pad=2)
