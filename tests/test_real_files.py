"""Real files: those that fit are read, those that do not are refused with the reason. Skipped without them."""

from pathlib import Path

import pytest

from tests.cli import pdr

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("preset", "path", "says"),
    [
        ("weather-small", "weather/ncep_air_2013.nc", "air 1460 x 25 x 53, every 6 h"),
        ("weather-small", "weather/era5_uk_t2m_2019-03-01_21.nc", "t2m 504 x 33 x 49, every 1 h"),
        ("weather-small", "odd/calendar_360_day.nc", "air_temperature 240 x 37 x 49, every 360 d"),
        ("traffic-small", "traffic", "inflow, outflow 1129 x 16 x 8, every 1 h"),
        ("video-small", "video", "gray 109 x 128 x 128"),
    ],
)
def test_files_that_fit(shared: Path, preset: str, path: str, says: str) -> None:
    result = pdr("train", "--preset", preset, "--data", shared / "data" / path, "--dry-run", "-q")
    assert (result.code, says in result.out) == (0, True), result.err or result.out


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("odd/irregular_time_steps_era5_global_4deg.nc", "irregular times: steps of 7 h, 8 h"),
        ("odd/non_cf_time_missing20pct.cdf", "no time coordinate; its dimensions are timestep (64)"),
        ("odd/foreign_layout_radar.h5", "it has image1/image_data"),
        ("weather/weatherbench_constants_5.625deg.nc", "no time coordinate"),
        ("weather/globcurrent_2002_daily_uv_nan_land.nc", "2 gridded variables"),
        ("weather/ersst_v5_monthly_nan_land.nc", "128 steps are too few"),
    ],
)
def test_files_that_do_not(shared: Path, path: str, says: str) -> None:
    result = pdr("train", "--preset", "weather-small", "--data", shared / "data" / path, "--steps", "1", "-q")
    assert (result.code, says in result.last) == (65, True), result.last
    assert not Path("runs").exists()
