from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats, times
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.formats.hdf5 import HDF5
from pdr_cli.data.series import Series, names, read_frames
from pdr_cli.errors import DataError, TimeError, UsageError, VariableError
from tests.builders import traffic_file


def read(paths: list[Path], variables: Sequence[str] = ()) -> Series:
    (series,) = HDF5().open(paths, ReadOptions(variables))
    return series


def test_slots_become_times_of_day(tmp_path: Path) -> None:
    series = read([traffic_file(tmp_path / "a.h5", 3, slots=48)])
    # Slot 01 of a half-hourly day begins at midnight, slot 48 at 23:30.
    assert times.label(series.time.values[0]) == "2014-01-01 00:00"
    assert times.label(series.time.values[47]) == "2014-01-01 23:30"
    assert names(series) == ["inflow", "outflow"]


def test_slots_may_count_from_zero(tmp_path: Path) -> None:
    series = read([traffic_file(tmp_path / "a.h5", 2, first_slot=0)])
    assert times.label(series.time.values[23]) == "2014-01-01 23:00"


def test_missing_days_are_gaps(tmp_path: Path) -> None:
    series = read([traffic_file(tmp_path / "a.h5", 6, drop_days=[2])])
    assert times.segments(series.time.values, times.find_step(series.time.values)) == [(0, 48), (48, 120)]


def test_files_of_several_years_are_joined_in_order(tmp_path: Path) -> None:
    whole = read([traffic_file(tmp_path / "a.h5", 4)])
    with (
        h5py.File(tmp_path / "b.h5", "w") as b,
        h5py.File(tmp_path / "c.h5", "w") as c,
        h5py.File(tmp_path / "a.h5") as a,
    ):
        for out, part in ((b, slice(0, 48)), (c, slice(48, 96))):
            out["data"], out["date"] = a["data"][part], a["date"][part]
    joined = read([tmp_path / "c.h5", tmp_path / "b.h5"])
    assert np.array_equal(joined.time.values, whole.time.values)
    assert np.array_equal(read_frames(joined, 40, 60), read_frames(whole, 40, 60))


def test_written_files_read_back_in_the_same_layout(tmp_path: Path) -> None:
    series = read([traffic_file(tmp_path / "a.h5", 3, slots=48)]).isel(time=slice(10, 14)).load()
    formats.write(series, tmp_path / "out.h5", {"title": "forecast"})
    with h5py.File(tmp_path / "out.h5") as back:
        assert back["date"][0] == b"2014010111"
        assert back["data"].shape == (4, 2, 8, 8)
    assert np.array_equal(read([tmp_path / "out.h5"]).time.values, series.time.values)


def test_another_layout_is_refused_with_what_it_has(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "radar.h5", "w") as out:
        out["image1/image_data"] = np.zeros((4, 4))
    with pytest.raises(DataError, match=r"it has image1/image_data; expected the data sets `data`"):
        formats.open_series([tmp_path / "radar.h5"])


def test_dates_that_are_none_are_refused(tmp_path: Path) -> None:
    path = traffic_file(tmp_path / "a.h5", 1)
    with h5py.File(path, "a") as out:
        out["date"][3] = b"yesterday1"
    with pytest.raises(TimeError, match="YYYYMMDDSS"):
        read([path])


def test_unknown_channel_lists_those_there(tmp_path: Path) -> None:
    with pytest.raises(VariableError, match="inflow, outflow"):
        read([traffic_file(tmp_path / "a.h5", 1)], ["speed"])


@pytest.mark.parametrize("per_day", [-1, 0, 12, 100_000])
def test_slots_that_do_not_lie_in_the_day_that_is_stated_are_refused(tmp_path: Path, per_day: int) -> None:
    path = traffic_file(tmp_path / "a.h5", 1)
    with h5py.File(path, "a") as out:
        out.attrs["slots_per_day"] = per_day
    with pytest.raises(TimeError, match=f"slots 1 to 24 do not lie in a day of {per_day} slots from 1 on"):
        read([path])


def test_slots_before_the_first_are_refused(tmp_path: Path) -> None:
    path = traffic_file(tmp_path / "a.h5", 1)
    with h5py.File(path, "a") as out:
        out["date"][0] = b"20140101-1"
    with pytest.raises(TimeError, match="slot -1 is before the first of a day"):
        read([path])


def test_grids_without_cells_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["data"], out["date"] = np.zeros((2, 0, 8, 8)), np.array([b"2014010101", b"2014010102"])
    with pytest.raises(DataError, match="expected the data sets `data`"):
        read([tmp_path / "a.h5"])


def netcdf_traffic(path: Path, start: str, steps: int, minutes: int) -> Series:
    """Counts in NetCDF, which has no slots of a day."""
    when = np.datetime64(start, "ns") + np.arange(steps) * np.timedelta64(minutes, "m")
    counts = np.arange(steps * 12, dtype=np.float32).reshape(steps, 3, 4)
    variables = {name: (("time", "y", "x"), counts, {"units": "count"}) for name in ("inflow", "outflow")}
    xr.Dataset(variables, coords={"time": when}).to_netcdf(path)
    (series,) = formats.open_series([path], ReadOptions(list(variables)))
    return series


@pytest.mark.parametrize(("minutes", "per_day"), [(60, 24), (30, 48), (5, 288), (1440, 1)])
def test_slots_of_traffic_from_netcdf_follow_from_its_step(tmp_path: Path, minutes: int, per_day: int) -> None:
    given = netcdf_traffic(tmp_path / "a.nc", "2014-01-01", 3 * per_day + 1, minutes)
    formats.write(given, tmp_path / "b.h5", {})
    back = read([tmp_path / "b.h5"])
    assert back.attrs["file_attrs"] == {"slots_per_day": per_day, "first_slot": 1}
    assert np.array_equal(back.time.values, given.time.values)
    assert np.array_equal(back.values, given.values)


def test_the_slot_of_a_single_forecast_frame_follows_from_its_lead_time(tmp_path: Path) -> None:
    given = netcdf_traffic(tmp_path / "a.nc", "2014-01-01T10:30", 1, 30)
    one = given.assign_coords(forecast_period=("time", [0.5], {"units": "hours"}))
    formats.write(one, tmp_path / "b.h5", {})
    # Slot 1 begins at 00:00 and slot 22 at 10:30.
    with h5py.File(tmp_path / "b.h5") as back:
        assert (back["date"][0], back.attrs["slots_per_day"]) == (b"2014010122", 48)


@pytest.mark.parametrize(
    ("start", "minutes", "says"),
    [
        ("2014-01-01", 5 * 60, "steps of 5 h do not divide a day"),
        ("2014-01-01", 2 * 1440, "steps of 2 d do not divide a day"),
        ("2014-01-01T00:10", 60, "numbers the 24 slots of a day, and 2014-01-01 00:10 begins none of them"),
    ],
)
def test_times_that_are_not_slots_of_a_day_are_refused(tmp_path: Path, start: str, minutes: int, says: str) -> None:
    given = netcdf_traffic(tmp_path / "a.nc", start, 4, minutes)
    with pytest.raises(UsageError, match=f"{says}; write this forecast to .nc"):
        formats.check_output_format(tmp_path / "b.h5", given)
    with pytest.raises(UsageError, match=says):
        formats.write(given, tmp_path / "b.h5", {})
    assert not (tmp_path / "b.h5").exists()


def test_times_without_dates_are_refused(tmp_path: Path) -> None:
    given = read([traffic_file(tmp_path / "a.h5", 1)])
    windows = given.assign_coords(time=np.arange(24) * 1800.0)
    with pytest.raises(UsageError, match="no dates of the standard calendar"):
        formats.write(windows, tmp_path / "b.h5", {})
