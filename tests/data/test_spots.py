"""Places between cells: of finer grids and of points, at whatever longitudes a grid has."""

from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import spots
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series, make_series
from pdr_cli.data.spots import DEGREES, OWN, Points
from pdr_cli.errors import GridError, UsageError

UNITS = {"lat": "degrees_north", "lon": "degrees_east", "y": "m", "x": "m"}


def on(y, x, names=DEGREES) -> Series:
    coords = {n: (d, np.asarray(v), {"units": UNITS[n]}) for n, d, v in zip(names, "yx", (y, x), strict=True)}
    return make_series(
        np.zeros((1, 1, len(y), len(x)), np.float32), np.zeros(1), {"a": {}}, coords, kind="weather", files=["f.nc"]
    )


def points(*listed: tuple[str, float, float], columns=DEGREES) -> Points:
    names, y, x = zip(*listed, strict=True)
    return Points(names, y, x, columns, Path("stations.csv"))


REGION = on(np.arange(75, 14, -2.5), np.arange(200, 331, 2.5))
GLOBE = on(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5))


def scaled(n: int):
    return lambda own, around: ((own[0] - 1) * n + 1, own[1] * n if around else (own[1] - 1) * n + 1)


def test_a_region_ends_with_its_outermost_cells():
    found = spots.finer(REGION, scaled(4))
    lat, lon = found.sides["lat"][1], found.sides["lon"][1]
    assert (found.words, lat[0], lat[-1], lon[0], lon[-1]) == ("97 x 209", 75, 15, 200, 330)
    assert np.array_equal(lat[::4], REGION.lat.values)
    assert np.array_equal(found.rows[::4], np.arange(25))


def test_a_globe_of_72_x_144_becomes_the_common_grid_of_a_quarter_of_a_degree():
    found = spots.finer(GLOBE, lambda own, around: (721, 1440))
    assert np.allclose(found.sides["lat"][1], np.linspace(90, -90, 721))
    assert np.allclose(found.sides["lon"][1], np.arange(0, 360, 0.25))
    assert found.columns[-1] == pytest.approx(144 - 0.1)  # beyond the last of 144 columns, before the first


@pytest.mark.parametrize("first", [0, -180, 170])
def test_new_longitudes_are_in_the_range_of_the_grids_own(first):
    """As -180 to 180 or 0 to 360; a grid that begins at 170 and jumps from 350 to 0 stays between 0 and 360."""
    lon = first + np.arange(0.0, 360, 10)
    lon = lon % 360 if first == 170 else lon
    found = spots.finer(on(np.arange(-80, 81, 10.0), lon), scaled(2)).sides["lon"][1]
    assert np.allclose(found[::2], lon)
    assert np.allclose((found[1::2] - lon) % 360, 5)
    assert min(lon) <= found.min() <= found.max() < min(lon) + 360


@pytest.mark.parametrize("turn", [0, 360, -720])
def test_points_are_found_whatever_their_turn(turn):
    found = spots.at(REGION, points(("a", 70, -155 + turn), ("b", 15, 330 + turn), ("c", 75, 200 + turn)))
    assert found.rows == pytest.approx([2, 24, 0])
    assert found.columns == pytest.approx([2, 52, 0])


def test_points_on_a_globe_may_lie_beyond_its_last_column_and_at_its_poles():
    cells = on(np.arange(-87.5, 88, 5), np.arange(2.5, 360, 5))
    found = spots.at(cells, points(("greenwich", 0, 0), ("pole", 90, 100)))
    assert found.columns[0] == pytest.approx(71.5)
    assert found.rows[1] == 35


def test_points_outside_are_named_with_where_the_grid_lies():
    with pytest.raises(
        GridError, match=r"2 points lie outside of the grid: Oslo \(59.9, 10.8\), South \(10, 250\)"
    ) as error:
        spots.at(REGION, points(("Oslo", 59.9, 10.8), ("Inside", 40, 250), ("South", 10, 250)))
    assert error.value.expected == "lat 15 to 75 and lon 200 to 330"
    with pytest.raises(GridError, match=r"a point lies outside of the grid: P \(95, 0\)"):
        spots.at(GLOBE, points(("P", 95, 0)))


def test_projected_grids_take_their_own_coordinates_and_no_degrees():
    grid = on(np.arange(0, 5000, 1000.0), np.arange(3000, -1, -1000.0), OWN)
    assert spots.at(grid, points(("a", 1500, 500), columns=OWN)).columns == pytest.approx([2.5])
    with pytest.raises(GridError, match="no latitudes and longitudes; expected columns y, x"):
        spots.at(grid, points(("a", 1, 5)))
    with pytest.raises(GridError, match="expected columns lat, lon"):
        spots.at(REGION, points(("a", 1, 5), columns=OWN))


@pytest.mark.parametrize("turn", [Orientation(True, False, 3), Orientation(False, True, 2), Orientation(True, True, 0)])
def test_places_follow_the_order_of_the_models_cells(turn):
    """The model's frame at the model's place is the input's at the input's place."""
    given = np.random.default_rng(0).normal(size=(6, 8))
    columns, rows = turn.apply_points(np.arange(8.0), np.arange(6.0), (6, 8), around=True)
    model = turn.apply(given)
    assert np.array_equal(model[rows.astype(int)][:, columns.astype(int)], given)


@pytest.mark.parametrize("text", ["721", "0x5", "ax5", "1x9", "5x5x5", "-3x4"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="rows x columns"):
        spots.check_size(text)
