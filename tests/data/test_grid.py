import numpy as np
import pytest

from pdr_cli.data import grid
from pdr_cli.data.grid import area_weights
from pdr_cli.data.series import make_series


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
    "coords", [{}, {"y": ("y", np.arange(3.0), {})}, {"lat": ("y", np.array([0.0, 500, 1000]), {})}]
)
def test_other_rows_have_no_area(coords: dict[str, object]) -> None:
    series = make_series(np.zeros((1, 1, 3, 4), np.float32), np.arange(1.0), {"v": {}}, coords, kind="weather")
    assert grid.areas(series) is None
