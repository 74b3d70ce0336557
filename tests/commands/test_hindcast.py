"""`pdr predict --every-init`: a forecast from each possible init, in one file, by one process or several."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data.formats import base, cf
from pdr_cli.errors import StorageError
from pdr_cli.inference import hindcast
from pdr_cli.inference import model as inference
from pdr_cli.inference import plan as planning
from pdr_cli.inference.intake import Intake
from pdr_cli.system import processes as distributed
from tests.builders import field, weather_file
from tests.cli import pdr
from tests.reliability.processes import LOCKS, another_process

REPOSITORY = Path(__file__).parents[2]


def opened(path: str) -> xr.Dataset:
    """A forecast file, in memory."""
    with xr.open_zarr(path, chunks=None) if path.endswith(".zarr") else xr.open_dataset(path) as data:
        return data.load()


def make(out: str, data: Path, run: Path, *arguments: str) -> xr.Dataset:
    """The hindcast that pdr writes."""
    result = pdr("predict", data, "--every-init", "-o", out, "-m", run, *arguments)
    assert result.code == 0, result.err
    return opened(out)


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 steps of which the 11th and 12th are not there."""
    return weather_file(tmp_path_factory.mktemp("holed") / "air.nc", 30, size=(13, 15), drop=[10, 11])


def test_there_is_a_forecast_from_every_init_that_has_a_whole_window(holed: Path, weather_run: Path) -> None:
    made = make("h.nc", holed, weather_run)
    with xr.open_dataset(holed) as given:
        # 4 steps are observed: the runs of 10 and 18 steps have 7 and 15 places where a window of 4 can end.
        possible = np.concatenate([given.time.values[3:10], given.time.values[13:]])
    assert (made.forecast_reference_time.values == possible).all()
    assert made.forecast_period.values.tolist() == [6, 12, 18, 24]
    assert (made.time.values - possible[:, None] == made.forecast_period.values * np.timedelta64(1, "h")).all()
    assert np.isfinite(made.t2m.values).all()
    assert made.attrs["history"].endswith("\nmade by a test")
    assert made.attrs["pdr_input_window"] == "2020-01-01 00:00/2020-01-08 06:00"


def test_each_is_the_forecast_that_predict_makes_from_its_init(holed: Path, weather_run: Path) -> None:
    made = make("h.zarr", holed, weather_run, "--steps", "6")
    for init in made.forecast_reference_time.values[[0, 7, 21]]:
        assert (
            pdr("predict", holed, "-o", "f.nc", "-m", weather_run, "--init", str(init)[:16], "--steps", "6").code == 0
        )
        one = opened("f.nc")
        # Windows go through the network together, which rounds other than one by one: float32 has 3e-5 at 300 K.
        assert np.abs(made.t2m.sel(forecast_reference_time=init).values - one.t2m.values).max() < 1e-3
        assert (made.time.sel(forecast_reference_time=init).values == one.time.values).all()


def test_formats_and_time_layouts_hold_the_same_numbers(holed: Path, weather_run: Path) -> None:
    made = make("h.nc", holed, weather_run).t2m.values
    assert np.array_equal(make("h.zarr", holed, weather_run).t2m.values, made)
    other = make("w.zarr", holed, weather_run, "--time-layout", "wb2")
    assert other.t2m.dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert np.array_equal(other.t2m.values, made)


def test_chunks_do_not_change_the_numbers(holed: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("h.zarr", holed, weather_run).t2m.values
    monkeypatch.setattr(cf, "CHUNK_BYTES", 5 * 4 * 4 * 13 * 15)  # 5 forecasts of 4 steps of 13 x 15
    again = make("g.zarr", holed, weather_run)
    assert again.t2m.encoding["chunks"] == (5, 4, 13, 15)
    assert np.abs(again.t2m.values - made).max() < 1e-3


@pytest.mark.parametrize("name", ["h.nc", "h.zarr", "w.nc", "w.zarr"])
def test_a_hindcast_is_scored_as_the_model_that_made_it(weather: Path, weather_run: Path, name: str) -> None:
    make(name, weather, weather_run, "--time-layout", "wb2" if name.startswith("w") else "cf")
    result = pdr("evaluate", weather, "-m", weather_run, "-m", name, "-o", "scores.json")
    assert result.code == 0, result.err
    scores = json.loads(Path("scores.json").read_text())["scores"]
    assert set(scores) == {weather_run.name, name[0], "persistence", "climatology", "anomaly", "ridge"}
    for metric in ("rmse", "mae"):
        of_model, of_file = (scores[who][metric]["lead"] for who in (weather_run.name, name[0]))
        assert of_file == pytest.approx(of_model, rel=1e-4), "other windows share a batch, which rounds otherwise"


def test_one_forecast_in_weatherbenchs_names_is_scored(weather: Path, weather_run: Path) -> None:
    made = ["predict", weather, "-m", weather_run, "--init", "2020-02-07T18:00", "--time-layout", "wb2"]
    for name in ("f.nc", "f.zarr"):
        assert pdr(*made, "-o", name).code == 0
        result = pdr("evaluate", weather, "-m", name, "--json")
        assert (result.code, json.loads(result.out)["n_windows"]) == (0, 1), result.err


def test_packed_input_gives_unpacked_forecasts_with_the_inputs_attributes(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(weather) as data:
        packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768, "zlib": False}
        data.t2m.attrs["remark"] = "ünïcode"
        data.to_netcdf(tmp_path / "packed.nc", encoding={"t2m": packing})
        given = dict(data.t2m.attrs)
    for name in ("h.nc", "h.zarr"):
        made = make(name, Path("packed.nc"), weather_run)
        assert made.t2m.encoding["dtype"] == np.float32
        assert "scale_factor" not in made.t2m.encoding
        assert {k: made.t2m.attrs[k] for k in given} == given


def test_traffic_has_hindcasts_too(traffic: Path, traffic_run: Path) -> None:
    made = make("h.zarr", traffic, traffic_run)
    assert made.inflow.dims == ("forecast_reference_time", "forecast_period", "y", "x")
    # 12 days of 24 hours without the fifth: runs of 96 and 168 hours, less the 3 before the first window of 4 ends.
    assert made.sizes["forecast_reference_time"] == (96 - 3) + (168 - 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "h.nc", "--init", "2020-01-03"], "--init is for one forecast"),
        (["-o", "h.nc", "--preview", "a.png"], "--preview is for one forecast"),
        (["-o", "h.nc", "--fill-gap", "interp"], "--fill-gap is for one forecast"),
        (["-o", "h.npz"], "--every-init writes .nc"),
        (["-o", "h.nc", "--time-layout", "grib"], "expected cf or wb2"),
        (["-o", "h.npz", "--time-layout", "wb2"], "--time-layout wb2 is for .nc"),
    ],
)
def test_what_cannot_be_is_a_usage_error(holed: Path, weather_run: Path, arguments: list[str], says: str) -> None:
    result = pdr("predict", holed, "--every-init", "-m", weather_run, *arguments)
    assert (result.code, says in result.last) == (2, True), result.last


def test_months_have_other_lead_times_from_every_init(make_run: Callable[..., Path], tmp_path: Path) -> None:
    times = np.arange("2000-01", "2013-05", dtype="datetime64[M]").astype("datetime64[ns]")
    with xr.open_dataset(weather_file(tmp_path / "plain.nc")) as data:
        data.load().assign_coords(time=times).to_netcdf(tmp_path / "monthly.nc")
    run = make_run(tmp_path / "monthly.nc")
    result = pdr("predict", "monthly.nc", "--every-init", "-o", "h.nc", "-m", run)
    assert (result.code, "lead times differ from init to init" in result.last) == (2, True)


def test_a_missing_value_stops_it_and_leaves_the_old_one(weather_run: Path, tmp_path: Path) -> None:
    values = field(30, 13, 15)
    path = weather_file(tmp_path / "whole.nc", 30, values=values)
    make("h.zarr", path, weather_run)
    values[25, 3, 4] = np.nan
    result = pdr(
        "predict",
        weather_file(tmp_path / "nan.nc", 30, values=values),
        "--every-init",
        "-o",
        "h.zarr",
        "-m",
        weather_run,
    )
    assert (result.code, "1 of" in result.last) == (65, True)
    assert opened("h.zarr").sizes["forecast_reference_time"] == 27
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.zarr", "nan.nc", "whole.nc"]


def test_numbers_that_read_back_differently_are_noticed(
    holed: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hindcast._forecast

    def wrong(made: hindcast.Hindcast, block: tuple[int, int], put: Callable, *rest: object) -> str:
        return right(made, block, lambda start, frames: put(start, frames + 1), *rest)

    monkeypatch.setattr(hindcast, "_forecast", wrong)
    result = pdr("predict", holed, "--every-init", "-o", "h.nc", "-m", weather_run)
    assert (result.code, "read back differently" in result.last) == (74, True)
    assert not Path("h.nc").exists()


@pytest.mark.parametrize("name", ["h.nc", "h.zarr"])
def test_a_rerun_is_up_to_date_until_something_it_depends_on_changes(
    holed: Path, weather_run: Path, tmp_path: Path, name: str
) -> None:
    def outcome(data: Path, *more: str) -> str:
        result = pdr("predict", data, "--every-init", "-o", name, "-m", weather_run, "--skip-existing", *more)
        assert result.code == 0, result.err
        return result.out

    assert "22 forecasts of 4 steps" in outcome(holed)
    assert outcome(holed) == f"{name}  up to date\n"
    with xr.open_dataset(holed) as data:
        changed = data.load().copy(deep=True)
    changed.t2m[15, 3, 4] += 0.5
    changed.to_netcdf(tmp_path / "changed.nc")
    for data, more in (
        (tmp_path / "changed.nc", []),
        (holed, []),
        (holed, ["--compress", "1"]),
        (holed, ["--steps=5"]),
    ):
        assert "22 forecasts" in outcome(data, *more), "each differs from the one before"


@pytest.mark.parametrize("name", ["h.nc", "h.zarr"])
def test_a_hindcast_that_was_altered_is_found(
    holed: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = make(name, holed, weather_run)
    for divided in (base.BLOCK_BYTES, 5 * 4 * 4 * 13 * 15):  # 5 of the 22 forecasts of 4 steps of 13 x 15
        monkeypatch.setattr(base, "BLOCK_BYTES", divided)
        result = pdr("verify", name)
        assert (result.code, "those that were written (SHA-256)" in result.out) == (0, True), result.out
    made.t2m[20, 2, 5, 5] += 0.25
    shutil.rmtree(name) if name.endswith("zarr") else Path(name).unlink()
    made.to_zarr(name, consolidated=False) if name.endswith("zarr") else made.to_netcdf(name)
    result = pdr("verify", name)
    assert (result.code, "differ from the SHA-256" in result.out) == (65, True), result.out


def test_an_existing_hindcast_is_left_on_request(holed: Path, weather_run: Path) -> None:
    make("h.zarr", holed, weather_run)
    before = {p: p.stat().st_mtime_ns for p in Path("h.zarr").rglob("*")}
    result = pdr("predict", holed, "--every-init", "-o", "h.zarr", "-m", weather_run, "--no-clobber")
    assert (result.code, "--no-clobber leaves it" in result.last) == (73, True)
    assert {p: p.stat().st_mtime_ns for p in Path("h.zarr").rglob("*")} == before


def test_of_two_hindcasts_at_once_the_second_leaves_with_75(
    holed: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hindcast, "plan", lambda *_: pytest.fail("it began to work"))
    with another_process(LOCKS, "h.zarr") as other:
        result = pdr("predict", holed, "--every-init", "-o", "h.zarr", "-m", weather_run)
    assert (result.code, f"process {other.pid} on " in result.last) == (75, True), result.last
    assert not Path("h.zarr").exists()


def test_a_folder_of_other_things_is_not_replaced(holed: Path, weather_run: Path) -> None:
    Path("h.zarr").mkdir()
    Path("h.zarr", "letter.txt").write_text("mine")
    result = pdr("predict", holed, "--every-init", "-o", "h.zarr", "-m", weather_run)
    assert (result.code, "not replaced" in result.last) == (73, True)
    assert Path("h.zarr", "letter.txt").read_text() == "mine"


def started(arguments: list[str | Path], processes: int = 0) -> subprocess.Popen:
    """`pdr arguments...` in a process of its own, or by torchrun in several."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    command = [sys.executable, *several, "-m", "pdr_cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("name", ["h.zarr", pytest.param("h.nc", marks=pytest.mark.slow)])
def test_a_killed_hindcast_leaves_no_file_of_that_name(
    weather: Path, weather_run: Path, tmp_path: Path, name: str
) -> None:
    process = started(["predict", weather, "--every-init", "-o", name, "-m", weather_run, "--steps", "400"])
    while process.poll() is None and not list(tmp_path.glob(".h.*.unfinished/journal-0.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob(".h.*.unfinished")), "it was killed while it wrote"
    assert not (tmp_path / name).exists()
    make(name, weather, weather_run)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, several in (("one.zarr", 0), ("two.zarr", 2)):
        process = started(
            ["predict", weather, "--every-init", "-o", name, "-m", weather_run, "--steps", "100"], several
        )
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        assert out.count(f"{name}  init") == 1, "one process speaks for all"
    one, two = opened("one.zarr"), opened("two.zarr")
    # 100 steps of 13 x 15 are 78 kB, so 53 of the 157 forecasts make a chunk of 4 MiB: one process has 1, the other 2.
    assert one.t2m.encoding["chunks"] == (53, 100, 13, 15)
    assert one.t2m.values.tobytes() == two.t2m.values.tobytes()
    assert (one.time.values == two.time.values).all()


@pytest.mark.slow
def test_what_stops_one_process_stops_both(weather_run: Path, tmp_path: Path) -> None:
    values = field(160, 13, 15)
    values[-1] = np.nan
    path = weather_file(tmp_path / "nan.nc", values=values)
    arguments = ["predict", path, "--every-init", "-o", "h.zarr", "-m", weather_run, "--steps", "100"]
    process = started(arguments, 2)
    _, err = process.communicate(timeout=500)
    assert process.returncode != 0
    assert err.count("missing (NaN)") == 1, err
    assert [p.name for p in tmp_path.iterdir()] == ["nan.nc"]


def test_regions_of_processes_are_whole_neighbouring_and_together_everything() -> None:
    for n, size in ((10, 3), (2, 4), (7, 1)):
        shares = [list(distributed.Processes(rank, size).share(n)) for rank in range(size)]
        assert list(itertools.chain(*shares)) == list(range(n))


def test_several_processes_need_zarr_and_every_init(
    holed: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for arguments, says in (
        (["--every-init", "-o", "h.nc"], "name the output .zarr"),
        (["-o", "f.zarr"], "torchrun shares out the forecasts of --every-init"),
    ):
        result = pdr("predict", holed, "-m", weather_run, *arguments)
        assert (result.code, says in result.last) == (2, True)


def test_a_failure_elsewhere_keeps_its_code_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    here = distributed.Processes(rank=1, size=2)
    monkeypatch.setattr(distributed.Processes, "_gather", lambda self, mine: [(74, "E_IO", "disk full"), mine])
    with pytest.raises(distributed.PdrError, match="disk full") as met, here.together():
        pass
    assert (met.value.code, met.value.name) == (StorageError.code, StorageError.name)


def test_windows_are_read_once_and_few_are_kept(weather: Path, weather_run: Path) -> None:
    model = inference.load(weather_run / "model.safetensors", "cpu")
    intake = Intake(model)
    series = intake.open([weather])[0]
    made = hindcast.Hindcast(planning.plan(intake, series, None), model, intake)
    reads: list[tuple[int, int]] = []
    from pdr_cli.data import windows

    source, plain = series, windows.read_frames
    windows.read_frames = lambda s, low, high: reads.append((low, high)) or plain(s, low, high)  # type: ignore[assignment]
    try:
        made.frames(0, len(made.plan.inits))
    finally:
        windows.read_frames = plain
    # 160 steps are five blocks of 32, each read once however many windows share it.
    assert reads == [(low, low + 32) for low in range(0, source.sizes["time"], 32)]
