import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdr_cli.data import windows
from pdr_cli.data.series import Series, make_series
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import TimeError

HOUR = Step(3600)


def series_with(steps: list[int]) -> Series:
    """A series whose frame at hour h is filled with h."""
    times = np.datetime64("2020-01-01", "ns") + np.array(steps) * np.timedelta64(1, "h")
    frames = np.broadcast_to(np.array(steps, np.float32)[:, None, None, None], (len(steps), 1, 4, 4)).copy()
    return make_series(frames, times, {"v": {}}, {}, format="netcdf", files=["v.nc"])


@given(st.sets(st.integers(0, 90), min_size=2), st.integers(1, 5), st.integers(1, 5))
def test_no_window_crosses_a_gap_and_none_is_missed(hours: set[int], observed: int, ahead: int) -> None:
    steps = sorted(hours)
    series = series_with(steps)
    cache = FrameCache([series], 1)
    cut = windows.cut([series], [(0, 0, len(steps))], observed, ahead, HOUR, cache)
    expected = [h for h in steps if all(h + k in hours for k in range(observed + ahead))]
    assert [steps[start] for _, start in cut.places] == expected
    for i, hour in enumerate(expected):
        x, y = cut.batch([i])
        assert np.concatenate([x, y], axis=1)[0, :, 0, 0, 0].tolist() == list(range(hour, hour + observed + ahead))


def test_a_cache_smaller_than_the_series_changes_nothing() -> None:
    series = series_with(list(range(500)))
    small, large = FrameCache([series], 1), FrameCache([series], 100)
    small._limit = 2
    for start in (0, 470, 31, 5, 250, 0):
        assert np.array_equal(small.frames(0, start, start + 30), large.frames(0, start, start + 30))
    assert len(small._blocks) <= 2


def test_last_window_needs_enough_steps() -> None:
    with pytest.raises(TimeError, match="needs 12 steps, found 7"):
        windows.last_window(series_with(list(range(7))), 12, HOUR)


def test_last_window_names_the_times_it_lacks() -> None:
    gap = series_with([*range(10), 11, 12])
    with pytest.raises(TimeError, match=r"1 time is missing.*2020-01-01 10:00"):
        windows.last_window(gap, 4, HOUR)
    assert windows.last_window(gap, 4, HOUR, init=9) == (6, 10)


def test_another_step_than_the_models_is_named() -> None:
    with pytest.raises(TimeError, match="steps of 3 h, but the model was trained on steps of 1 h"):
        windows.last_window(series_with(list(range(0, 60, 3))), 4, HOUR)


MEMORY_SCRIPT = """
import resource, sys
import numpy as np
from pathlib import Path
from pdr_cli.data import formats, splits, statistics, windows, times
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
series = formats.open_series([Path(sys.argv[1])])
series[0].isel(time=slice(0, 8)).values
before = peak()
step = times.find_step(series[0].time.values)
cache = windows.FrameCache(series, 32)
cut = windows.cut(series, [(0, 0, series[0].sizes["time"])], 4, 4, step, cache)
statistics.measure([(series[0], 0, series[0].sizes["time"])], 100, 0)
rng = np.random.default_rng(0)
for _ in range(40):
    cut.batch(rng.integers(0, len(cut), 8))
print(peak() - before)
"""


def test_reading_windows_of_a_file_larger_than_the_bound_stays_below_it(tmp_path: Path) -> None:
    import netCDF4

    # 480 MB on paper; never written, so the disk holds little: netCDF fills it on reading.
    path = tmp_path / "large.nc"
    with netCDF4.Dataset(path, "w") as out:
        for name, size in (("time", 1200), ("lat", 250), ("lon", 400)):
            out.createDimension(name, size)
        time = out.createVariable("time", "f8", ("time",))
        time.units = "hours since 2000-01-01"
        time[:] = np.arange(1200)
        values = out.createVariable("t", "f4", ("time", "lat", "lon"), chunksizes=(1, 250, 400), zlib=True, complevel=1)
        for start in range(0, 1200, 100):
            values[start : start + 100] = np.arange(start, start + 100, dtype=np.float32)[:, None, None]
    done = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout)
    assert grown < 240, f"{grown:.0f} MB for a file of 480 MB"
