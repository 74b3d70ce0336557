from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats, kinds
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.kinds import TRAFFIC, VIDEO, WEATHER
from pdr_cli.data.series import Series, make_series
from pdr_cli.errors import DataError, UsageError
from tests.builders import traffic_file, video_file


def fields(*units: str) -> Series:
    """A NetCDF file of one variable for each unit, opened."""
    times = np.datetime64("2024-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h")
    values = np.ones((4, 3, 3), np.float32)
    made = {f"v{n}": (("time", "y", "x"), values, {"units": unit}) for n, unit in enumerate(units)}
    xr.Dataset(made, coords={"time": times}).to_netcdf("fields.nc")
    return formats.open_series([Path("fields.nc")], ReadOptions(list(made)))[0]


@pytest.mark.parametrize(
    ("units", "kind"),
    [
        (["count"], TRAFFIC),
        (["counts", "count"], TRAFFIC),
        (["count", "K"], WEATHER),
        (["K"], WEATHER),
        ([""], WEATHER),
    ],
)
def test_fields_are_traffic_where_all_units_are_counts(units: list[str], kind: kinds.Kind) -> None:
    assert kinds.of(fields(*units)) is kind


def test_each_format_has_the_kind_of_its_data() -> None:
    city, clip = traffic_file(Path("city.h5")), video_file(Path("clip.mp4"), 4)
    assert [kinds.of(formats.open_series([p])[0]) for p in (city, clip)] == [TRAFFIC, VIDEO]


@pytest.mark.parametrize("unit", ["", "vehicles"])
def test_a_preset_makes_fields_without_physical_units_traffic(unit: str) -> None:
    assert kinds.of(kinds.with_kind(fields(unit), "traffic")) is TRAFFIC


def test_counts_are_weather_if_the_preset_is_for_weather() -> None:
    counts = fields("count")
    assert kinds.of(kinds.with_kind(counts, "weather")) is WEATHER
    assert kinds.of(kinds.with_kind(counts, "any")) is TRAFFIC
    assert kinds.of(counts) is TRAFFIC, "the series itself is not changed"


def test_kelvin_is_no_traffic() -> None:
    with pytest.raises(
        DataError, match=r"fields\.nc holds weather \(units 'K'\); expected traffic; take weather-small"
    ):
        kinds.with_kind(fields("K"), "traffic")


@pytest.mark.parametrize("kind", ["weather", "traffic"])
def test_clips_are_refused_for_presets_of_fields(kind: str) -> None:
    clip = formats.open_series([video_file(Path("clip.mp4"), 4)])[0]
    with pytest.raises(DataError, match=rf"clip\.mp4 holds video; expected {kind}; take video-small"):
        kinds.with_kind(clip, kind)


def test_fields_are_no_video() -> None:
    with pytest.raises(DataError, match=r"expected video; take weather-small"):
        kinds.with_kind(fields("K"), "video")


def test_a_layout_of_traffic_alone_is_not_weather() -> None:
    city = formats.open_series([traffic_file(Path("city.h5"))])[0]
    with pytest.raises(DataError, match=r"city\.h5 holds traffic; expected weather; take traffic-small"):
        kinds.with_kind(city, "weather")


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--kind trafic is not known\. Did you mean 'traffic'"):
        kinds.named("trafic")


def test_a_series_names_its_kind() -> None:
    made = make_series(np.zeros((1, 1, 2, 2), np.float32), np.arange(1.0), {"v": {}}, {}, kind="traffic")
    assert kinds.of(made) is TRAFFIC
