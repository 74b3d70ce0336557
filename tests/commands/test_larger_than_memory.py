"""Files of 100 GB, nearly all of which was never written and takes no disk: only the windows that are needed are read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders import field
from tests.commands.test_memory import peak_mb, write_file
from tests.conftest import tiny_settings

H, W = 128, 256
WRITTEN = 144  # steps at the beginning, from which a model is trained, and then the last WINDOW of the file
WINDOW = 4
STEPS = {"nc": 800_000, "zarr": 800_000, "h5": 400_000}  # of 131 kB, and of 262 kB in HDF5: 105 GB
FEW = 300
# What a time axis of 800,000 steps takes, a few times over, and the parts of the files' indexes.
ALLOWED_MB = 300
PERIODS = (
    "train_period=1950-01-01/1950-01-02",
    "val_period=1950-01-03/1950-01-04",
    "test_period=1950-01-05/1950-01-06",
)
SETTINGS = tiny_settings(
    "kernel_size=31", "batch=1", "data.statistics_mb=4", "data.cache_mb=16", *(f"data.{p}" for p in PERIODS)
)


def some() -> np.ndarray:
    """Frames that are written, [WRITTEN, H, W]; all others hold what a file says of chunks that never were."""
    return np.repeat(field(WRITTEN, 8, W), H // 8, axis=1)


def sparse_nc(path: Path, steps: int) -> Path:
    """NetCDF-4 as h5py writes it, because netCDF4 cannot set a fill value that is not missing."""
    with h5py.File(path, "w") as out:
        axes = {"time": np.arange(steps, dtype="f8"), "lat": np.linspace(60, 20, H), "lon": np.linspace(0, 80, W)}
        values = out.create_dataset("t", (steps, H, W), "f4", chunks=(1, H, W), fillvalue=280)
        for number, (name, axis) in enumerate(axes.items()):
            out[name] = axis
            out[name].make_scale(name)
            values.dims[number].attach_scale(out[name])
        out["time"].attrs["units"] = "hours since 1950-01-01"
        values[:WRITTEN] = some()
        values[-WINDOW:] = some()[:WINDOW]
    return path


def sparse_zarr(path: Path, steps: int) -> Path:
    """A store of which a few chunks are there."""
    import zarr

    group = zarr.create_group(path)
    axes = {"time": np.arange(steps, dtype="f8"), "lat": np.linspace(60, 20, H), "lon": np.linspace(0, 80, W)}
    for name, axis in axes.items():
        units = {"units": "hours since 1950-01-01"} if name == "time" else {}
        group.create_array(name, data=axis, dimension_names=(name,), attributes=units)
    values = group.create_array(
        "t", shape=(steps, H, W), chunks=(1, H, W), dtype="f4", fill_value=280.0, dimension_names=tuple(axes)
    )
    values[:WRITTEN] = some()
    values[-WINDOW:] = some()[:WINDOW]
    return path


def sparse_h5(path: Path, steps: int) -> Path:
    """The TaxiBJ layout, hourly from 1950 on."""
    hours = np.datetime64("1950-01-01", "h") + np.arange(steps)
    days = np.char.replace(np.datetime_as_string(hours, "D"), "-", "").astype("S8")
    with h5py.File(path, "w") as out:
        out["date"] = np.char.add(days, np.char.zfill((np.arange(steps) % 24 + 1).astype("S2"), 2))
        values = out.create_dataset("data", (steps, 2, H, W), "f4", chunks=(1, 2, H, W), fillvalue=20)
        values[:WRITTEN] = some()[:, None].repeat(2, axis=1)
        values[-WINDOW:] = some()[:WINDOW, None].repeat(2, axis=1)
    return path


MAKERS: dict[str, Callable[[Path, int], Path]] = {"nc": sparse_nc, "zarr": sparse_zarr, "h5": sparse_h5}


def disk_mb(path: Path) -> float:
    """What a file or a folder takes on disk."""
    return sum(p.stat().st_blocks * 512 for p in (path, *path.rglob("*"))) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_predicting_and_training_take_no_more_memory_for_100_gb(tmp_path: Path, kind: str) -> None:
    peaks = {}
    for name, steps in (("few", FEW), ("many", STEPS[kind])):
        path = MAKERS[kind](tmp_path / f"{name}.{kind}", steps)
        trained = peak_mb(
            tmp_path, "train", "--preset", "demo", "--data", str(path), "-o", name, "--steps", "2", "-q", *SETTINGS
        )
        predicted = peak_mb(tmp_path, "predict", str(path), "-m", name, "-o", f"{name}_forecast.nc")
        peaks[name] = np.array([trained, predicted])
    channels = 2 if kind == "h5" else 1
    assert STEPS[kind] * channels * H * W * 4 > 100e9
    assert disk_mb(tmp_path / f"many.{kind}") < 200, "the file is sparse"
    grown = peaks["many"] - peaks["few"]
    assert grown.max() < ALLOWED_MB, f"train and predict took {grown} MB more for 100 GB; with little {peaks['few']}"


@pytest.mark.slow
def test_a_hindcast_takes_no_more_memory_for_more_inits(tmp_path: Path) -> None:
    files = {steps: write_file(tmp_path / f"{steps}.nc", steps) for steps in (1_000, 4_000)}
    peak_mb(
        tmp_path, "train", "--preset", "demo", "--data", str(files[1_000]), "-o", "run", "--steps", "2", "-q", *tiny_settings()
    )  # fmt: skip
    for suffix in ("nc", "zarr"):
        one, more = (
            peak_mb(
                tmp_path, "predict", str(path), "-m", "run", "--every-init", "--steps", "16", "-o", f"{steps}h.{suffix}"
            )
            for steps, path in files.items()
        )
        # 3000 forecasts of 16 x 32 x 32 are 197 MB.
        assert more - one < 80, f"{more} MB instead of {one} MB"
