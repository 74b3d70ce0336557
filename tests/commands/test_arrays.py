"""Excerpts and other files of traffic, forecast and scored by the conventions of the training."""

import csv
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pdr_cli.runs import modelfile
from tests.cli import pdr


def hours_file(path: Path, first: str, count: int, keep: range = range(24)) -> Path:
    """HDF5 of hours counted from 0, of which `keep` are there; every value is the hour of the day, plus the row."""
    when = np.datetime64(first, "h") + np.arange(count)
    hour = (when - when.astype("datetime64[D]")).astype(int)
    when, hour = when[np.isin(hour, keep)], hour[np.isin(hour, keep)]
    with h5py.File(path, "w") as out:
        out["data"] = (hour[:, None, None, None] + np.arange(8)[:, None] + np.zeros((2, 8, 8))).astype(np.float32)
        days = np.datetime_as_string(when, unit="D")
        out["date"] = np.array([f"{d.replace('-', '')}{h:02d}" for d, h in zip(days, hour, strict=True)], dtype="S")
    return path


@pytest.fixture(scope="module")
def run_from_0(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    """A run on hours that are counted from 0."""
    return make_run(hours_file(tmp_path_factory.mktemp("data") / "full.h5", "2014-04-01", 24 * 20))


def test_the_header_keeps_the_conventions_of_the_training(run_from_0: Path) -> None:
    card = modelfile.read_header(run_from_0 / "model.safetensors").card
    assert card.conventions == {"slots": "0-23", "values": "counts", "axes": "channels-first"}
    assert "conventions  slots=0-23, values=counts, axes=channels-first" in pdr("inspect", run_from_0).out


def test_a_forecast_after_an_excerpt_is_dated_as_the_training(run_from_0: Path) -> None:
    tail = hours_file(Path("tail.h5"), "2014-05-01T14", 10)
    result = pdr("predict", tail, "-m", run_from_0, "-o", "out.h5")
    assert result.code == 0, result.err
    assert "init 2014-05-01 23:00" in result.out
    assert "slots 14 to 23 do not show the first and the last of a day; counted 0-23 as in the model's" in result.err
    with h5py.File("out.h5") as out:
        assert out["date"][:].tolist() == [b"2014050200", b"2014050201", b"2014050202", b"2014050203"]


def test_the_climatology_of_a_metro_is_of_its_own_hours(run_from_0: Path) -> None:
    metro = hours_file(Path("metro.h5"), "2014-05-01", 24 * 8, range(6, 23))
    result = pdr("evaluate", metro, "-m", run_from_0, "--against", "climatology", "--metrics", "rmse", "-o", "s.csv")
    assert result.code == 0, result.err
    with Path("s.csv").open() as stream:
        errors = [float(row["value"]) for row in csv.DictReader(stream) if row["model"] == "climatology"]
    assert errors
    assert max(errors) < 1e-4, "the data are a function of the hour"


def test_half_hours_are_not_forecast_as_hours(run_from_0: Path) -> None:
    with h5py.File("half.h5", "w") as out:
        out["data"] = np.zeros((96, 2, 8, 8), np.float32)
        out["date"] = np.array([f"201405{1 + k // 48:02d}{k % 48 + 1:02d}" for k in range(96)], dtype="S")
    result = pdr("predict", "half.h5", "-m", run_from_0, "-o", "out.h5")
    assert (result.code, "steps of 30 min, but the model was trained on steps of 1 h" in result.last) == (65, True)


def test_inspect_says_what_it_assumes_and_an_option_decides() -> None:
    tail = hours_file(Path("tail.h5"), "2014-05-01T14", 10)
    assert "assumed to be 1-24, steps of 60 min" in pdr("inspect", tail).out
    stated = pdr("inspect", tail, "--assume", "slots=0-23").out
    assert "2014-05-01 14:00 to 2014-05-01 23:00" in stated
    assert "do not show" not in stated
    assert pdr("inspect", tail, "--assume", "slots=25").code == 2


def test_inspect_counts_the_days_that_are_not_whole() -> None:
    metro = hours_file(Path("metro.h5"), "2014-05-01", 24 * 8, range(23))
    assert "days         8, 8 of them with fewer than 24 slots" in pdr("inspect", metro).out


def test_scaled_values_are_not_forecast_by_a_model_of_counts(run_from_0: Path) -> None:
    tail = hours_file(Path("tail.h5"), "2014-05-01", 24)
    with h5py.File(tail, "a") as out:
        out["data"][...] = out["data"][:] / 40
    result = pdr("predict", tail, "-m", run_from_0, "-o", "out.h5")
    assert (result.code, "expected counts, as the model was trained on" in result.last) == (65, True)


def test_an_array_without_times_is_named_with_the_way_out() -> None:
    np.save("digits.npy", np.zeros((20, 3, 64, 64), np.uint8))
    last = pdr("inspect", "digits.npy").last
    assert "digits.npy is a NumPy array of 20 x 3 x 64 x 64 uint8, without times and names of its axes" in last
    assert "to_netcdf('OUT.nc')" in last
    Path("digits.pkl").write_bytes(b"\x80\x04K\x01.")
    assert (
        "is a Python pickle, which may run code when it is read, which is not read" in pdr("inspect", "digits.pkl").last
    )


def test_the_command_for_an_array_works() -> None:
    np.save("a.npy", np.arange(24 * 3 * 8 * 8.0).reshape(24, 3, 8, 8))
    code = pdr("inspect", "a.npy").last.split('python -c "')[1].split('"')[0]
    exec(code, {})
    assert "24, 2024-01-01 00:00 to 2024-01-01 23:00" in pdr("inspect", "OUT.nc").out


def test_a_folder_of_arrays_is_named_with_the_way_out() -> None:
    Path("folder").mkdir()
    np.save("folder/a.npy", np.zeros((20, 8, 8)))
    result = pdr("inspect", "folder")
    assert (result.code, "holds no inputs, but files: 1 of .npy" in result.last) == (66, True)
    assert "to_netcdf('OUT.nc')" in result.last


def test_a_model_reads_values_as_the_option_of_its_training(make_run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    frames = rng.uniform(0, 0.9, (24 * 20, 2, 8, 8)).astype(np.float32)
    when = np.datetime64("2014-04-01") + np.arange(len(frames)) // 24
    stamps = [f"{str(d).replace('-', '')}{k % 24:02d}" for k, d in enumerate(when)]
    with h5py.File("means.h5", "w") as out:
        out["data"], out["date"] = frames, np.array(stamps, dtype="S")
    run = make_run(Path("means.h5").absolute(), "--assume", "values=counts")
    result = pdr("predict", "means.h5", "-m", run, "-o", "out.h5")
    assert result.code == 0, result.err
    with h5py.File("out.h5") as out:
        assert out.attrs["values"] == "counts"
