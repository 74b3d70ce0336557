import numpy as np
import pytest

from pdr_cli.data import regrid
from pdr_cli.data.series import Series, make_series, read_frames
from pdr_cli.errors import GridError

LON = {"units": "degrees_east"}


def plane(lat: np.ndarray, lon: np.ndarray, steps: int = 2) -> Series:
    """A field 2·lat + 3·lon + 100·step, which bilinear interpolation gives back exactly."""
    frames = 2 * lat[:, None] + 3 * lon[None, :] + 100 * np.arange(steps)[:, None, None]
    coords = {"lat": ("y", lat, {}), "lon": ("x", lon, LON)}
    return make_series(
        frames[:, None].astype(np.float32), np.arange(float(steps)), {"v": {}}, coords, kind="weather", files=["v.nc"]
    )


@pytest.mark.parametrize("turned", [slice(None), slice(None, None, -1)])
def test_bilinear_gives_back_a_plane_whatever_the_order(turned: slice) -> None:
    given = plane(np.arange(0.0, 11)[turned], np.arange(20.0, 41))
    lat, lon = np.array([7.25, 3.5, 1.0]), np.array([20.5, 30.25, 40.0])
    out = regrid.to_grid(given, ("lat", lat, {}), ("lon", lon, LON), "bilinear")
    assert out.shape == (2, 1, 3, 3)
    assert read_frames(out, 1, 2)[0, 0] == pytest.approx(2 * lat[:, None] + 3 * lon + 100, rel=1e-6)
    assert out.lat.values.tolist() == lat.tolist()


def test_longitudes_are_the_same_a_turn_on() -> None:
    out = regrid.to_grid(
        plane(np.arange(4.0), np.arange(-20.0, 1)),
        ("lat", np.array([1.5]), {}),
        ("lon", np.array([345.0, 350.5]), LON),
        "bilinear",
    )
    assert read_frames(out, 0, 1).flatten() == pytest.approx([3 - 45, 3 - 28.5], rel=1e-6)


def test_poles_may_lie_half_a_row_beyond_the_last_row_and_nothing_else() -> None:
    lat = np.arange(-87.5, 90, 5.0)
    given = plane(lat, np.arange(0.0, 360, 5))
    out = regrid.to_grid(given, ("lat", np.array([90.0]), {}), ("lon", np.array([5.0]), LON), "bilinear")
    assert read_frames(out, 0, 1).item() == 2 * 87.5 + 15, "the last row's"
    region = plane(lat[lat > 0], np.arange(0.0, 360, 5))
    with pytest.raises(GridError, match=r"from 1 to 90 in y, the input from 2\.5 to 87\.5; give data that cover"):
        regrid.to_grid(region, ("lat", np.array([1.0, 90.0]), {}), ("lon", np.array([5.0]), LON), "bilinear")


def test_a_grid_without_coordinates_cannot_be_interpolated() -> None:
    bare = make_series(
        np.zeros((1, 1, 3, 3), np.float32), np.arange(1.0), {"v": {}}, {}, kind="weather", files=["v.nc"]
    )
    with pytest.raises(GridError, match="no coordinates to regrid by"):
        regrid.to_grid(bare, ("lat", np.arange(2.0), {}), ("lon", np.arange(2.0), LON), "bilinear")


@pytest.mark.parametrize("turned", [slice(None), slice(None, None, -1)])
def test_conservative_takes_the_mean_over_the_sphere(turned: slice) -> None:
    given = plane(np.arange(-35.0, 80, 10), np.arange(20.0, 60, 10))
    lat, lon = np.array([60.0, 0.0])[turned], np.array([25.0, 45.0])  # of 80 to 40, 20 to -20 ... by halfway points
    out = regrid.to_grid(given, ("lat", lat, {}), ("lon", lon, LON), "conservative")
    # Cells 60 degrees high: of 30 to 90 the given rows cover 30 to 80, of -30 to 30 all. A row counts by the sine of its
    # edges, and columns 20, 30 and 40, 50 (15 to 35 and 35 to 55) alike.
    edges = {60.0: np.arange(30.0, 90, 10), 0.0: np.arange(-30.0, 40, 10)}
    rows = [2 * np.average(e[:-1] + 5, weights=np.diff(np.sin(np.deg2rad(e)))) for e in (edges[v] for v in lat)]
    assert read_frames(out, 0, 1)[0, 0] == pytest.approx(np.array(rows)[:, None] + 3 * lon, abs=0.02)


def test_conservative_takes_the_mean_over_the_plane() -> None:
    given = plane(np.arange(0.5, 80), np.arange(20.5, 60)).rename(lat="north", lon="east")
    out = regrid.to_grid(
        given, ("north", np.array([60.0, 20.0]), {}), ("east", np.array([30.0, 50.0]), {}), "conservative"
    )
    assert read_frames(out, 0, 1)[0, 0] == pytest.approx(np.array([[120 + 90, 120 + 150], [40 + 90, 40 + 150]]))
