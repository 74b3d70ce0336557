"""Coastlines: where land ends, at whatever longitudes a map has, and on maps alone."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from pdr_cli.data.series import make_series
from pdr_cli.drawing import coastlines, maps, panels

DEGREES = {"lat": "degrees_north", "lon": "degrees_east"}
# Of capes that any outline of 1:110 million has: Florida's tip, Cape Agulhas, and the Chukchi coast beyond the date line.
FLORIDA, AGULHAS, CHUKOTKA = (-80.7, 25.2), (19.6, -34.8), (180.0, 68.97)


def coasts(latitudes, longitudes, units=DEGREES) -> list[np.ndarray]:
    """The lines that are drawn on a panel of this grid."""
    coords = {
        name: (dim, np.asarray(values, float), {"units": units[name]})
        for name, dim, values in (("lat", "y", latitudes), ("lon", "x", longitudes))
        if name in units
    }
    frame = np.zeros((1, 1, len(latitudes), len(longitudes)), np.float32)
    series = make_series(frame, np.zeros(1), {"a": {}}, coords, kind="weather")
    axes = maps.panel(panels.grid_of(series), frame[0, 0], "gray", panels.Limits(0, 1)).axes[0]
    drawn = [c for c in axes.collections if isinstance(c, LineCollection)]
    return [line for collection in drawn for line in collection.get_segments()]


def passes(lines: list[np.ndarray], place: tuple[float, float]) -> bool:
    """True if a line has a point within half a degree of a place."""
    return any(np.abs(line - place).max(axis=1).min() < 0.5 for line in lines)


@pytest.mark.parametrize("turn", [0, 360, -360])
@pytest.mark.parametrize("descending", [True, False])
def test_a_coast_lies_where_the_map_has_its_longitude(turn, descending):
    latitudes = np.arange(15, 76, 2.5)[:: -1 if descending else 1]
    lines = coasts(latitudes, np.arange(-160, -29, 2.5) + turn)
    assert passes(lines, (FLORIDA[0] + turn, FLORIDA[1]))
    assert not passes(lines, AGULHAS)


@pytest.mark.parametrize("first", [0, -180, 90])
def test_a_globe_has_every_coast_once_from_wherever_it_begins(first):
    lines = coasts(np.arange(-88, 90, 4), (first + np.arange(0, 360, 4) + 180) % 360 - 180)
    for longitude, latitude in (FLORIDA, AGULHAS, CHUKOTKA):
        begin = (first + 180) % 360 - 180
        assert passes(lines, ((longitude - begin) % 360 + begin, latitude))


def test_lines_neither_jump_nor_follow_the_cuts_of_their_polygons():
    """The longest straight piece at this scale is 9 degrees; a jump across the date line would be 360."""
    for line in coastlines.lines():
        assert np.abs(np.diff(line, axis=0)).max() < 10
        along = (np.abs(np.abs(line[:, 0]) - 180) < 1e-9) | (line[:, 1] < -89.9)
        assert not (along[1:] & along[:-1]).any()


@pytest.mark.parametrize(
    "units", [{"lat": "m", "lon": "m"}, {"lat": "radian", "lon": "radian"}, {}], ids=["projected", "radian", "pixels"]
)
def test_other_grids_have_none(units):
    assert coasts(np.arange(20, 60, 2.5), np.arange(0, 40, 2.5), units) == []


def test_the_frame_under_ellipses_is_pale_and_the_coast_is_not():
    coords = {
        "lat": ("y", np.arange(40.0, 60), {"units": "degrees_north"}),
        "lon": ("x", np.arange(0.0, 20), {"units": "degrees_east"}),
    }
    frame = np.random.default_rng(0).normal(size=(1, 1, 20, 20)).astype(np.float32)
    grid = panels.grid_of(make_series(frame, np.zeros(1), {"a": {}}, coords, kind="weather"))
    gaussians = {name: np.full(2, 5.0) for name in ("x", "y", "sigma_1", "sigma_2", "rotation")}
    axes = maps.ellipses(grid, frame[0, 0], gaussians | {"amplitude": np.ones((2, 1))}, 0).axes[0]
    assert (axes.images[0].get_alpha(), axes.collections[0].get_alpha()) == (0.4, 0.8)
