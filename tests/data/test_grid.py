import numpy as np
import pytest

from pdr_cli.data import grid
from pdr_cli.data.grid import area_weights, geographic, orient, wraps
from pdr_cli.data.series import make_series
from pdr_cli.errors import GridError


def test_area_weights_are_the_shares_of_a_sphere() -> None:
    # Rows of 60 degrees around -60, 0 and 60: between latitudes 30 and 90 lies (1 - sin 30°) / 2 = a quarter of the sphere.
    weights = area_weights(np.array([60.0, 0.0, -60.0]), 4)
    assert weights.shape == (3, 4)
    assert weights[:, 0] / weights[:, 0].sum() == pytest.approx([0.25, 0.5, 0.25])
    # A grid that has its poles as rows gives them the small caps beyond the last half-way line: not nothing.
    caps = area_weights(np.linspace(90, -90, 7), 1)[:, 0]
    assert caps[0] / caps.sum() == pytest.approx((1 - np.sin(np.deg2rad(75))) / 2)
    assert area_weights(np.linspace(-90, 90, 7), 1)[:, 0] == pytest.approx(caps)


@pytest.mark.parametrize(
    ("name", "attrs"), [("lat", {}), ("y", {"units": "degrees_north"}), ("y", {"standard_name": "latitude"})]
)
def test_latitudes_are_known_by_name_or_attributes(name: str, attrs: dict[str, str]) -> None:
    rows = np.array([60.0, 0.0, -60.0])
    series = make_series(
        np.zeros((1, 1, 3, 4), np.float32), np.arange(1.0), {"v": {}}, {name: ("y", rows, attrs)}, kind="weather"
    )
    found = grid.areas(series)
    assert found is not None
    assert np.array_equal(found, area_weights(rows, 4))


@pytest.mark.parametrize(
    ("rows", "unit"), [([90.00001, 0, -90.00001], "degrees_north"), ([np.pi / 2, 0, -np.pi / 2], "radians")]
)
def test_latitudes_in_radians_and_beyond_a_pole_by_rounding_have_areas(rows: list[float], unit: str) -> None:
    coords = {"lat": ("y", np.array(rows), {"units": unit, "standard_name": "latitude"})}
    series = make_series(np.zeros((1, 1, 3, 4), np.float32), np.arange(1.0), {"v": {}}, coords, kind="weather")
    found = grid.areas(series)
    assert found is not None
    assert found == pytest.approx(area_weights(np.array([90.0, 0, -90]), 4), rel=1e-5)


@pytest.mark.parametrize(
    "coords", [{}, {"y": ("y", np.arange(3.0), {})}, {"lat": ("y", np.array([0.0, 500, 1000]), {})}]
)
def test_other_rows_have_no_area(coords: dict[str, object]) -> None:
    series = make_series(np.zeros((1, 1, 3, 4), np.float32), np.arange(1.0), {"v": {}}, coords, kind="weather")
    assert grid.areas(series) is None


@pytest.mark.parametrize(
    ("name", "attrs", "axis"),
    [
        ("y", {"units": "degree_N"}, "latitude"),
        ("y", {"units": "degreesN"}, "latitude"),
        ("y", {"units": "degrees north"}, "latitude"),
        ("Longitude", {"units": "degrees"}, "longitude"),
        ("nav_lon", {}, "longitude"),
        ("x", {"units": "degreeE"}, "longitude"),
        ("lon", {"standard_name": "latitude"}, "latitude"),
        # CF-1.11, 5.6: rotated coordinates have names and degrees of their own, and projected ones have lengths.
        ("rlat", {"standard_name": "grid_latitude", "units": "degrees"}, None),
        ("lat", {"standard_name": "grid_latitude", "units": "degrees"}, None),
        ("lat", {"units": "km"}, None),
        ("y", {"units": "degrees"}, None),
        ("northing", {"standard_name": "projection_y_coordinate", "units": "m"}, None),
    ],
)
def test_a_standard_name_decides_then_units_then_the_name(name: str, attrs: dict[str, str], axis: str | None) -> None:
    assert geographic(name, attrs) == axis


@pytest.mark.parametrize(
    ("values", "round_the_globe"),
    [
        (np.arange(0.0, 360, 2.5), True),
        (np.arange(-180.0, 180, 5.625), True),
        (np.arange(0.0, 360, 0.1, dtype=np.float32), True),
        (np.arange(0.0, 361, 2.5), False),
        (np.arange(0.0, 355, 2.5), False),
        (np.arange(200.0, 331, 2.5), False),
    ],
)
def test_a_circle_is_its_span_and_one_step(values: np.ndarray, round_the_globe: bool) -> None:
    assert wraps(values) == round_the_globe


def test_a_column_that_comes_twice_is_cut_and_comes_back() -> None:
    lon = np.arange(0.0, 361, 45)
    orientation = orient(np.arange(3.0), lon, np.arange(3.0), np.arange(0.0, 360, 45))
    frames = np.random.default_rng(0).random((2, 3, 9))
    frames[..., -1] = frames[..., 0]
    assert orientation.apply(frames).shape == (2, 3, 8)
    assert np.array_equal(orientation.invert(orientation.apply(frames)), frames)


@pytest.mark.parametrize("lon", [np.arange(0.0, 360, 45), np.arange(-180.0, 181, 45), np.arange(360.0, -1, -45)])
def test_a_model_whose_last_column_repeats_the_first_takes_every_globe(lon: np.ndarray) -> None:
    model = np.arange(0.0, 361, 45)
    orientation = orient(None, lon, None, model)
    frames = np.cos(np.deg2rad(lon)) + np.zeros((2, 3, 1))
    found = orientation.apply(frames)
    assert np.allclose(found, np.cos(np.deg2rad(model)))
    assert np.allclose(orientation.invert(found), frames)


@pytest.mark.parametrize("width", [0.1, 0.25, 5.0])
def test_longitudes_agree_within_a_thousandth_of_their_own_cell(width: float) -> None:
    lon = np.arange(0, 360, width)
    west = np.sort((lon + 180) % 360 - 180) + 0.9e-3 * width
    assert orient(None, west, None, lon).roll_x != 0
    with pytest.raises(GridError):
        orient(None, west + 0.2e-3 * width, None, lon)
