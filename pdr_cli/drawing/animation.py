"""A forecast as an animation: what was observed, then what is forecast, beside what happened."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import clipfiles, clips
from pdr_cli.data.series import Series, names
from pdr_cli.drawing import maps, panels
from pdr_cli.drawing.charts import with_units
from pdr_cli.drawing.panels import FAINT, INK, MISSING, Grid, Sheet
from pdr_cli.drawing.pictures import POSITIVE
from pdr_cli.errors import StorageError
from pdr_cli.system.atomic import atomic_output

DPI = 110
WHOLE, LAST = 5000, 1800  # milliseconds: of all frames but the last together, and of the last
FASTEST, SLOWEST = 80, 500  # milliseconds a frame
LETTERS = 8.5  # of a title, per inch
NEARLY_WHITE = 248  # of 255
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Moment:
    """One frame of the animation: its time, how it is called, and what its panels show: each [C, H, W]."""

    time: str
    ahead: str
    panels: list[np.ndarray]


def write(
    path: Path,
    observed: Series,
    predicted: Series,
    truth: Series | None = None,
    *,
    model: str = "",
    provenance: Mapping[str, str] = NOTHING,
) -> None:
    """Draw a forecast as GIF or MP4: the observed frames, then the forecast; with `truth`, what happened beside it.

    Args:
        path: GIF or MP4 to write.
        observed: T frames that the forecast was made from.
        predicted: τ frames.
        truth: the τ frames that followed, at the same times.
        model: what to call the model in the title.
        provenance: global attributes; the file holds those that `formats.stored.provenance` reads.
    """
    frames = _render(observed, _moments(observed, predicted, truth), model)
    pace = int(np.clip(WHOLE / max(len(frames) - 1, 1), FASTEST, SLOWEST))
    about = {**provenance, clipfiles.DRAWN: ", ".join(names(predicted))}
    (_save_mp4 if path.suffix.lower() == ".mp4" else _save_gif)(path, frames, pace, about)


def _moments(observed: Series, predicted: Series, truth: Series | None) -> list[Moment]:
    columns = 1 if truth is None else 2
    times = np.concatenate([observed.time.values[-2:], predicted.time.values])
    leads = panels.lead_labels(observed.time.values[-1], predicted.time.values, time_axis.find_step(times))
    past = [
        Moment(time_axis.label(time), "", [frame] * columns)
        for time, frame in zip(observed.time.values, observed.values, strict=True)
    ]
    known = [predicted.values] if truth is None else [predicted.values, truth.values]
    future = [
        Moment(time_axis.label(time), leads[n], [frames[n] for frames in known])
        for n, time in enumerate(predicted.time.values)
    ]
    return past + future


def _render(series: Series, moments: list[Moment], model: str) -> list[np.ndarray]:
    """Every moment as a picture [height, width, 3] of 0 to 255, all on one colour scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stage = _Stage(series, moments, model)
    canvas = FigureCanvasAgg(stage.sheet.figure)
    stage.sheet.figure.set_dpi(DPI)
    pictures = []
    for number in range(len(moments)):
        stage.show(number)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return pictures


class _Stage:
    """The sheet on which moments follow each other: a row a channel, the truth in the second column."""

    def __init__(self, series: Series, moments: list[Moment], model: str) -> None:
        self.moments, self.views = moments, maps.views_of(series)
        self.grid: Grid = panels.grid_of(series)
        self.sheet = Sheet(len(self.views), len(moments[0].panels), self.grid, "", "")
        self._titles(series, moments, model)
        self.images, self.headings = [], []
        for row, view in enumerate(self.views):
            limits = panels.shared_limits([view.of(f) for m in moments for f in m.panels], *view.ends)
            for column, frame in enumerate(moments[0].panels):
                image = self.sheet.panel(row, column, view.of(frame), view.cmap, limits, row == len(self.views) - 1)
                self.images.append((image, view, column))
                self.headings.append((*self.sheet.heading(row, column, " ", " "), column))
            if view.channel is not None:
                self.sheet.bar(row, image, with_units(view.name, view.units), limits)
        self.done = self._progress()

    def show(self, number: int) -> None:
        """Change everything that moves to one moment."""
        moment = self.moments[number]
        for image, view, column in self.images:
            frame = view.of(moment.panels[column])
            if hasattr(image, "set_data"):
                image.set_data(np.ma.masked_invalid(panels.upright(self.grid, frame)))
            else:
                image.set_array(np.ma.masked_invalid(frame))
        for heading, detail, column in self.headings:
            name = ("Forecast", "Truth")[column] if moment.ahead else "Observed"
            heading.set(text=name, color=POSITIVE if name == "Forecast" else INK)
            detail.set_text(f"{moment.time}, {moment.ahead}" if moment.ahead else moment.time)
        self.done.set_width((number + 1) / len(self.moments))
        self.done.set_color(POSITIVE if moment.ahead else FAINT)

    def _titles(self, series: Series, moments: list[Moment], model: str) -> None:
        shown = names(series)
        name = series.attrs["variables"].get(shown[0], {}).get("long_name", shown[0])
        what = str(name) if len(self.views) == 1 and self.views[0].channel is not None else " and ".join(shown)
        init = next((m.time for m in reversed(moments) if not m.ahead), "")
        about = ", ".join(part for part in (model, f"init {init}") if part)
        for text, points, below, color in ((f"Forecast of {what}", 12, 0.14, INK), (about, 8.5, 0.4, FAINT)):
            room = int(LETTERS * 12 / points * self.sheet.inches[0])
            self.sheet.figure.text(
                0.15 / self.sheet.inches[0], 1 - below / self.sheet.inches[1], textwrap.shorten(text, room, placeholder=" …"),
                fontsize=points, color=color, va="top", fontfamily=panels.FONT, weight="bold" if color == INK else "normal",
            )  # fmt: skip

    def _progress(self) -> Any:
        """A line along the bottom that fills as time passes, with a mark where the forecast begins."""
        from matplotlib.patches import Rectangle

        width, height = self.sheet.inches
        axes = self.sheet.figure.add_axes((0.15 / width, 0.05 / height, 1 - 0.3 / width, 0.06 / height))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_axis_off()
        axes.add_patch(Rectangle((0, 0), 1, 1, color=MISSING))
        done = axes.add_patch(Rectangle((0, 0), 0, 1, color=FAINT))
        begin = sum(not m.ahead for m in self.moments) / len(self.moments)
        axes.add_patch(Rectangle((begin - 0.002, 0), 0.004, 1, color=INK))
        return done


def _save_gif(path: Path, frames: list[np.ndarray], pace: int, provenance: Mapping[str, str]) -> None:
    """Write a GIF whose frames share one palette, so that a colour means the same in all of them; the last stays longer."""
    from PIL import Image

    chosen = [frames[i] for i in sorted({0, len(frames) // 2, len(frames) - 1})]
    palette = Image.fromarray(np.concatenate(chosen)).quantize(255, method=Image.Quantize.MAXCOVERAGE)
    palette.putpalette(_with_white(palette.getpalette() or []))
    made = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    with atomic_output(path, verify=panels.check_picture) as temporary:
        made[0].save(
            temporary, "GIF", save_all=True, append_images=made[1:], loop=0, optimize=False,
            duration=[pace] * (len(made) - 1) + [LAST], comment=clipfiles.described(provenance),
        )  # fmt: skip


def _save_mp4(path: Path, frames: list[np.ndarray], pace: int, provenance: Mapping[str, str]) -> None:
    """Write an MP4 with even sides, which every player takes; a white row and column make them even."""

    def verify(written: Path) -> None:
        found = len(clips.scan(written).times)
        if found != len(frames):
            raise StorageError(f"{path}: {found} frames read back", f"{len(frames)}")

    height, width, _ = frames[0].shape
    even = np.pad(np.stack(frames), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
    with atomic_output(path, verify=verify) as temporary:
        clipfiles.write_mp4(even, temporary, Fraction(1000, pace), (1, 1), provenance)


def _with_white(palette: list[int]) -> list[int]:
    """A palette whose lightest colours are the white of the page.

    Pillow finds the nearest colour for cells of four levels a side; beside a light gray, white would lose its own.
    """
    colors = np.array(palette).reshape(-1, 3)
    colors[colors.min(axis=1) >= NEARLY_WHITE] = 255
    return [int(v) for v in colors.ravel()]
