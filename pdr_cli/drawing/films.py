"""A film of a scene on one sheet: the picture, what is seen later, how far away it is, and where its Gaussians go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, mean_of
from pdr_cli.drawing import panels
from pdr_cli.drawing.panels import Limits, Sheet

FRAMES = 5  # that are still legible side by side
WHITE = 255.0
DEPTH_COLOURS = "viridis_r"  # near is bright
FARTHEST = 400  # ways that are drawn: the longest


def sheet(path: Path, picture: Series, frames: Series, depth: Series, ways: np.ndarray, *, model: str = "") -> None:
    """Draw a film as PNG: frames and their depth, after the picture and the ways of the Gaussians that go farthest.

    Args:
        path: PNG to write.
        picture: one frame of values 0 to 255.
        frames: T of them; of members their mean is drawn.
        depth: of the frames, NaN where nothing is drawn.
        ways: starts and ends of Gaussians in the picture, [N, 2, (x, y)] pixels.
        model: what to call the model in the title.
    """
    frames, depth = mean_of(frames), mean_of(depth)
    which = np.unique(np.linspace(0, frames.sizes["time"] - 1, FRAMES).round().astype(int))
    drawn = Sheet(2, 1 + len(which), panels.grid_of(picture), "Film of a picture", model, apart=True)
    scale = Limits(0, 1)
    drawn.panel(0, 0, coloured(picture.values[0]), "gray", scale)
    drawn.heading(0, 0, "picture", time_axis.label(picture.time.values[0]))
    drawn.panel(1, 0, _faint(coloured(picture.values[0])), "gray", scale)
    drawn.heading(1, 0, "ways of Gaussians", "the longest, to the last frame")
    _ways(drawn, ways)
    far = panels.shared_limits([depth.values])
    for column, index in enumerate(which, start=1):
        drawn.panel(0, column, coloured(frames.values[index]), "gray", scale)
        drawn.heading(0, column, time_axis.label(frames.time.values[index]))
        image = drawn.panel(1, column, depth.values[index, 0], DEPTH_COLOURS, far)
    drawn.name(0, "film")
    drawn.name(1, "depth")
    drawn.bar(1, image, "depth, units of the scene", far)
    drawn.save(path)


def coloured(frame: np.ndarray) -> np.ndarray:
    """A frame [3, H, W] of values 0 to 255 as [H, W, 3] of 0 to 1."""
    return np.moveaxis(np.clip(frame / WHITE, 0, 1), 0, -1)


def _faint(picture: np.ndarray) -> np.ndarray:
    return 0.65 + 0.35 * picture


def _ways(drawn: Sheet, ways: np.ndarray) -> None:
    """Lines of the longest ways into the second panel of the first column, with a dot at each end."""
    from matplotlib.collections import LineCollection

    longest = np.argsort(np.linalg.norm(ways[:, 1] - ways[:, 0], axis=-1))[-FARTHEST:]
    lines: Any = LineCollection(list(ways[longest]), colors=["#c0392b"], linewidths=0.5, alpha=0.6)
    axes = drawn.figure.axes[1]
    axes.add_collection(lines, autolim=False)
    axes.plot(*ways[longest, 1].T, ".", color="#c0392b", markersize=1.5, scalex=False, scaley=False)
