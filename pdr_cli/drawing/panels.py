"""A sheet of panels on one grid: where they sit, what their colours mean, how their axes read.

Sizes are in inches and placed by hand: fixed aspects and shared colour bars defeat automatic layouts.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.grid import in_radians, is_latitude, is_longitude, unwrapped
from pdr_cli.data.series import Series, names, side, size
from pdr_cli.drawing import coastlines
from pdr_cli.errors import StorageError
from pdr_cli.system.atomic import atomic_output

INK, FAINT, MISSING = "#1f2430", "#6b7280", "#d9dce1"
PAPER = "#fffffe"  # inside of hollow marks; on a page its own background
AREA = 4.4  # square inches of a panel, whatever its shape
NARROW, WIDE = 1.6, 3.3  # inches
LEFT, RIGHT, TOP, BOTTOM = 0.85, 1.05, 0.72, 0.4  # margins: row names and latitudes, colour bar, title, longitudes
GAP, HEADER = 0.14, 0.52  # between columns; above each row
APART = 0.75  # further room after the first column, for the names and latitudes of the others
DPI = 150
# A few wild cells must not take the contrast from all others; the colour bar's arrows tell of them.
CLIPPED = 0.002
FONT = "DejaVu Sans"  # ships with matplotlib
NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Limits:
    """Ends of a colour scale and whether values lie beyond them."""

    low: float
    high: float
    extend: str = "neither"


def shared_limits(frames: list[np.ndarray], floor: float | None = None, ceiling: float | None = None) -> Limits:
    """One scale for all frames: their 0.2 and 99.8 % quantiles, where `floor` and `ceiling` do not fix the ends.

    Missing values do not count.
    """
    values = np.concatenate([f[np.isfinite(f)].ravel() for f in frames])
    if not values.size:
        return Limits(0.0, 1.0)
    low, high = np.quantile(values, [CLIPPED, 1 - CLIPPED])
    ends = (low if floor is None else floor, high if ceiling is None else ceiling)
    return _widened(float(ends[0]), float(ends[1]), values)


def symmetric_limits(frames: list[np.ndarray]) -> Limits:
    """A scale around 0 for differences: as far either way as 99.8 % of them go."""
    values = np.concatenate([f[np.isfinite(f)].ravel() for f in frames])
    high = float(np.quantile(np.abs(values), 1 - CLIPPED)) if values.size else 1.0
    return _widened(-high, high, values)


def _widened(low: float, high: float, values: np.ndarray) -> Limits:
    if high <= low:  # a constant field still gets a scale
        room = max(abs(high), 1.0) * 0.01
        low, high = low - room, high + room
    below, above = bool(np.any(values < low)), bool(np.any(values > high))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    return Limits(low, high, extend)


@dataclass(frozen=True)
class Grid:
    """How a series' cells lie on paper: coordinates of columns and rows, None on a plain pixel grid."""

    height: int
    width: int
    x: np.ndarray | None
    y: np.ndarray | None
    geographic: bool
    labels: tuple[str, str] = ("", "")

    @property
    def aspect(self) -> float:
        """Length of a unit of y, over that of x: on a map, what the middle latitude asks for."""
        if not self.geographic or self.y is None:
            return 1.0
        return 1 / max(0.3, float(np.cos(np.deg2rad((self.y[0] + self.y[-1]) / 2))))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of the panel."""
        left, right = edges(self.x, self.width)
        first, last = edges(self.y, self.height)
        if self.x is not None:
            left, right = min(left, right), max(left, right)
        # Coordinates ascend upwards; rows of pixels count downwards.
        return (left, right, last, first) if self.y is None else (left, right, min(first, last), max(first, last))

    @property
    def ratio(self) -> float:
        """Height of a panel over its width."""
        left, right, bottom, top = self.extent
        return self.aspect * abs(top - bottom) / abs(right - left)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points [..., (column, row)] in cells from the first one, as coordinates of the panel."""
        return np.stack([_along(self.x, points[..., 0]), _along(self.y, points[..., 1])], axis=-1)


def grid_of(series: Series) -> Grid:
    """The grid of a series."""
    height, width = size(series)
    x, y = side(series, "x"), side(series, "y")
    if x is None or y is None or width < 2 or height < 2:
        return Grid(height, width, None, None, False)
    geographic = is_latitude(str(y.name), y.attrs) and is_longitude(str(x.name), x.attrs)
    geographic = geographic and not (in_radians(y) or in_radians(x))
    labels = tuple(f"{c.name} [{c.attrs['units']}]" if c.attrs.get("units") else str(c.name) for c in (x, y))
    columns = unwrapped(x.values) if is_longitude(str(x.name), x.attrs) else x.values.astype(float)
    return Grid(height, width, columns, y.values.astype(float), geographic, (labels[0], labels[1]))


def edges(values: np.ndarray | None, n: int) -> tuple[float, float]:
    """Outer edges of the first and the last cell, half a cell from their centres."""
    if values is None:
        return -0.5, n - 0.5
    return float(values[0] - (values[1] - values[0]) / 2), float(values[-1] + (values[-1] - values[-2]) / 2)


def _along(values: np.ndarray | None, index: np.ndarray) -> np.ndarray:
    """Coordinates at fractional indices; beyond the grid they go on with its last spacing."""
    if values is None:
        return index
    n = len(values)
    before, after = values[0] - n * (values[1] - values[0]), values[-1] + n * (values[-1] - values[-2])
    return np.interp(index, [-n, *range(n), 2 * n - 1], [before, *values, after])


def degrees(value: float, axis: str) -> str:
    """A longitude or latitude as maps write it: 200 is 160°W, -30 is 30°S."""
    if axis == "x":
        value = (value + 180) % 360 - 180
        letter = "" if value in (0, -180) else "E" if value > 0 else "W"
    else:
        letter = "N" if value > 0 else "S" if value < 0 else ""
    return f"{abs(value):g}°{letter}"


def fixed_ends(series: Series) -> tuple[float | None, float | None]:
    """Ends of the colour scale that the kind of data gives: counts begin at 0, video has 0 to 255."""
    return kinds.of(series).bounds


def colors(series: Series) -> str:
    """The colour map of a series' values: gray for pictures, dark to bright for counts, viridis for fields."""
    return kinds.of(series).palette


def lead_labels(last: Any, valid: np.ndarray, step: time_axis.Step) -> list[str]:
    """Time from the last observation to each valid time: `+6 h`, `+3 d`, `+0.33 s`, `+2 months`."""
    if step.unit == "month":
        ahead = time_axis.positions(np.array([last, *valid]), step)[1:]
        return [f"+{time_axis.Step(round(n) * step.count, 'month')}" for n in ahead]
    seconds = time_axis.seconds(np.array([last, *valid], dtype=valid.dtype))
    return [f"+{_duration(s - seconds[0])}" for s in seconds[1:]]


def _duration(seconds: float) -> str:
    if seconds >= 10 * 86400:
        return f"{seconds / 86400:.4g} d"
    if seconds >= 3600:
        return f"{seconds / 3600:.4g} h"
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.2f} s"


class Sheet:
    """A figure of `rows` x `columns` panels of one grid, with a title and room for colour bars at the right.

    With `apart` the first column stands by itself and the rows' names are written after it.
    """

    def __init__(self, rows: int, columns: int, grid: Grid, title: str, subtitle: str, apart: bool = False) -> None:
        from matplotlib.figure import Figure

        self.grid, self.rows, self.columns = grid, rows, columns
        self.apart = APART if apart else 0.0
        self.width = float(np.clip(np.sqrt(AREA / grid.ratio), NARROW, WIDE))
        self.height = min(self.width * grid.ratio, 2 * WIDE)
        self.inches = (
            LEFT + columns * self.width + (columns - 1) * GAP + self.apart + RIGHT,
            TOP + rows * (self.height + HEADER) + BOTTOM,
        )
        self.figure = Figure(figsize=self.inches, dpi=DPI, facecolor="white")
        self._text(0.25, self.inches[1] - 0.2, title, 13, INK, weight="bold", va="top")
        self._text(0.25, self.inches[1] - 0.5, subtitle, 9, FAINT, va="top")

    def box(self, row: float, column: float) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel in inches; rows may be fractions, to sit between two."""
        left = LEFT + column * (self.width + GAP) + (self.apart if column else 0.0)
        bottom = self.inches[1] - TOP - (row + 1) * (self.height + HEADER)
        return left, bottom, self.width, self.height

    def axes(self, box: tuple[float, float, float, float]) -> Any:
        """Axes at a place given in inches."""
        w, h = self.inches
        return self.figure.add_axes((box[0] / w, box[1] / h, box[2] / w, box[3] / h))

    def panel(
        self, row: float, column: int, frame: np.ndarray, cmap: str, limits: Limits, longitudes: bool = True
    ) -> Any:
        """Draw a frame [H, W]; its image, for `bar`."""
        axes = self.axes(self.box(row, column))
        image = draw(axes, self.grid, frame, cmap, limits)
        dress(axes, self.grid, left=column == 0 or (column == 1 and self.apart > 0), bottom=longitudes)
        return image

    def heading(self, row: float, column: float, text: str, detail: str = "", color: str = INK) -> tuple[Any, Any]:
        """A line above a panel and a smaller one under it; returns both."""
        left, bottom, width, height = self.box(row, column)
        middle = left + width / 2
        return (
            self._text(
                middle,
                bottom + height + 0.175,
                fitted(text, width, 10),
                10,
                color,
                weight="bold",
                ha="center",
                va="bottom",
            ),
            self._text(middle, bottom + height + 0.06, detail, 8, FAINT, ha="center"),
        )

    def name(self, row: int, text: str) -> None:
        """What a row shows, written upwards before its second column."""
        left, bottom, _, height = self.box(row, 1)
        room = 0.16 if self.grid.x is None else 0.58
        self._text(left - room, bottom + height / 2, text, 10, INK, rotation=90, ha="center", va="center")

    def bar(self, row: float, image: Any, label: str, limits: Limits, rows: float = 1) -> None:
        """A colour bar at the right of `rows` rows from `row` on."""
        last, first = self.box(row + rows - 1, self.columns - 1), self.box(row, self.columns - 1)
        top = first[1] + first[3]
        inset = 0.08 * (top - last[1])
        axes = self.axes((last[0] + self.width + 0.16, last[1] + inset, 0.13, top - last[1] - 2 * inset))
        bar = self.figure.colorbar(image, cax=axes, extend=limits.extend)
        bar.outline.set_visible(False)
        axes.tick_params(labelsize=8, length=2, color=FAINT, labelcolor=INK)
        axes.set_ylabel(fitted(label, top - last[1] + 2 * GAP, 9), fontsize=9, color=INK, fontfamily=FONT)

    def save(self, path: Path) -> None:
        """Write the PNG."""
        save(self.figure, path)

    def _text(self, x: float, y: float, text: str, points: float, color: str, **options: Any) -> Any:
        w, h = self.inches
        return self.figure.text(x / w, y / h, text, fontsize=points, color=color, fontfamily=FONT, **options)


def fitted(text: str, room: float, points: float) -> str:
    """Text in as many lines as let it fit into `room` inches: names break at their underscores, `[units]` nowhere."""
    letters = int(room / (0.55 * points / 72))
    if len(text) <= letters:
        return text
    name, bracket, units = text.replace("_", " ").partition("[")
    kept = name + (bracket + units).replace(" ", NO_BREAK)
    return textwrap.fill(kept, max(letters, 8), break_long_words=False, break_on_hyphens=False)


def plain(axes: Any) -> None:
    """A chart without its upper and right frame, in quiet colours."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=FAINT, linewidth=0.6)
    axes.tick_params(which="both", labelsize=8, length=2.5, color=FAINT, labelcolor=FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=MISSING, linewidth=0.6)


def save(figure: Any, path: Path, tight: bool = False) -> None:
    """Write a figure as PNG, atomically; `tight` fits the sheet to what is drawn, beyond its edges too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_output(path, verify=check_picture) as temporary:
        fit: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15} if tight else {}
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=DPI, **fit)


def check_picture(path: Path) -> None:
    """Re-open a written picture.

    Raises:
        StorageError: it is not whole.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError) as error:  # as Pillow says that a chunk's checksum is wrong
        raise StorageError(f"{path.name} cannot be read again: {error}") from error


def draw(axes: Any, grid: Grid, frame: np.ndarray, cmap: str, limits: Limits, how: str = "nearest") -> Any:
    """Draw a frame [H, W], or [H, W, 3] of 0 to 1, at its coordinates, with coastlines on a map.

    `how` is matplotlib's `interpolation`.
    """
    from matplotlib import colormaps

    colors = colormaps[cmap].with_extremes(bad=MISSING)
    options = {"cmap": colors, "vmin": limits.low, "vmax": limits.high}
    frame = np.ma.masked_invalid(frame)
    left, right, bottom, top = grid.extent
    if grid.x is None or grid.y is None:
        image = axes.imshow(frame, extent=grid.extent, aspect="auto", interpolation=how, **options)
    elif _even(grid.x) and _even(grid.y):
        image = axes.imshow(upright(grid, frame), extent=grid.extent, aspect="auto", interpolation=how, **options)
    else:
        image = axes.pcolormesh(grid.x, grid.y, frame, shading="nearest", **options)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    if grid.geographic:
        coastlines.draw(axes, grid.extent)
    return image


def upright(grid: Grid, frame: np.ndarray) -> np.ndarray:
    """A frame with its first row at the top and its first column at the left of the map, as pictures are stored."""
    frame = frame[:, ::-1] if grid.x is not None and grid.x[0] > grid.x[-1] else frame
    return frame[::-1] if grid.y is not None and grid.y[0] < grid.y[-1] else frame


def _even(values: np.ndarray) -> bool:
    """True within a twentieth of a cell over the whole axis; finer than a picture shows."""
    even = np.linspace(values[0], values[-1], len(values))
    return bool(np.all(np.abs(values - even) <= 0.05 * abs(even[1] - even[0])))


def dress(axes: Any, grid: Grid, left: bool, bottom: bool, ticks: int = 4) -> None:
    """Frame and ticks: coordinates at the outer panels, nothing on pixels."""
    from matplotlib.ticker import MaxNLocator

    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=7.5, length=2.5, color=FAINT, labelcolor=FAINT, labelleft=left, labelbottom=bottom)
    if grid.x is None:
        axes.set(xticks=[], yticks=[])
        return
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 1.5, 2, 3, 4.5, 5, 6, 9, 10] if grid.geographic else None))
        if grid.geographic:
            axis.set_major_formatter(lambda value, _, name=name: degrees(value, name))


def quantity(series: Series, channel: int) -> tuple[str, str]:
    """Name of a channel and its units in brackets, "" where it has none."""
    name = names(series)[channel]
    attrs = series.attrs["variables"].get(name, {})
    units = str(attrs.get("units", ""))
    return name, "" if units in ("", "1") else units
