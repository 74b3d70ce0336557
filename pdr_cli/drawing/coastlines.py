"""Coastlines on maps of longitudes and latitudes.

`coastlines.npz` beside this file holds the outlines of land of Natural Earth 4.1.0, 1:110 million, which are in the public
domain (naturalearthdata.com), by way of the npm package world-atlas 2.0.2: 128 lines without the cuts that their polygons have
along the date line. `points` are (longitude, latitude) in hundredths of a degree, in the order of the lines, which begin at
`starts`; a line goes on across the date line without a jump.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("coastlines.npz")
INK, HALO = "#20242f", "white"  # the halo tells the line from dark colours; no theme of a page changes the ink
WIDTH, AROUND = 0.6, 1.5  # points: of the line and of its halo


@functools.cache
def lines() -> list[np.ndarray]:
    """Every line, [n, (longitude, latitude)] in degrees."""
    with np.load(FILE) as file:
        return np.split(file["points"] / 100, file["starts"][1:])


def within(left: float, right: float, bottom: float, top: float) -> list[np.ndarray]:
    """The lines that may cross a map between these degrees, each at the longitudes of the map: 200 E is 160 W."""
    found = []
    for line in lines():
        (west, south), (east, north) = line.min(axis=0), line.max(axis=0)
        if south > top or north < bottom:
            continue
        rounds = range(math.ceil((left - east) / 360), math.floor((right - west) / 360) + 1)
        found += [line + np.array([360 * n, 0]) for n in rounds]
    return found


def draw(axes: Any, extent: tuple[float, float, float, float]) -> None:
    """Draw the coastlines inside of the extent (left, right, bottom, top) of a map."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, withStroke

    found = within(*extent)
    if found:
        halo = [withStroke(linewidth=AROUND, foreground=HALO, alpha=0.5), Normal()]
        drawn = LineCollection(found, colors=INK, linewidths=WIDTH, alpha=0.8, path_effects=halo)
        drawn.set_rasterized(True)  # in a page, the paths of a globe would be a quarter of a megabyte
        axes.add_collection(drawn, autolim=False)
