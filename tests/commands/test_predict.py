import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import pdr_cli
from pdr_cli.data.formats import video
from tests.builders import field, traffic_file, weather_file
from tests.cli import pdr


def test_a_forecast_follows_the_last_time_in_the_inputs_own_terms(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    result = pdr("predict", weather, "-o", "forecast.nc", "-m", weather_run)
    assert result.code == 0, result.err
    assert result.out.startswith("forecast.nc  init 2020-02-09 18:00  valid 2020-02-10 00:00 to 2020-02-10 18:00")
    with xr.open_dataset(weather) as given, xr.open_dataset(tmp_path / "forecast.nc") as made:
        assert made.t2m.dims == ("time", "lat", "lon")
        assert made.t2m.dtype == np.float32
        assert (made.time.values == given.time.values[-1] + np.arange(1, 5) * np.timedelta64(6, "h")).all()
        assert made.forecast_period.values.tolist() == [6, 12, 18, 24]
        assert made.forecast_reference_time.values == given.time.values[-1]
        for name in ("lat", "lon"):
            assert made[name].values.tobytes() == given[name].values.tobytes(), "coordinates come back bit for bit"
        assert made.t2m.attrs["units"] == "K"
        assert made.attrs["Conventions"] == "CF-1.11"
        assert made.attrs["history"].endswith("\nmade by a test")
        assert made.attrs["history"].splitlines()[0].count("pdr predict") == 1


def test_python_gives_the_same_numbers(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    assert pdr("predict", weather, "-o", "forecast.nc", "-m", weather_run).code == 0
    with xr.open_dataset(weather) as given, xr.open_dataset(tmp_path / "forecast.nc") as made:
        forecast = pdr_cli.load(weather_run).predict(given)
        assert np.array_equal(forecast.t2m.values, made.t2m.values)


def test_orientation_inside_does_not_show_outside(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "north_up.nc")
        wrapped = data.assign_coords(lon=(((data.lon + 180) % 360) - 180).astype(np.float32))
        wrapped.to_netcdf(tmp_path / "wrapped.nc")
    made = {}
    for name in ("north_up", "wrapped"):
        assert pdr("predict", f"{name}.nc", "-o", f"{name}_forecast.nc", "-m", weather_run).code == 0
        made[name] = xr.open_dataset(tmp_path / f"{name}_forecast.nc").load()
    assert pdr("predict", weather, "-o", "plain.nc", "-m", weather_run).code == 0
    plain = xr.open_dataset(tmp_path / "plain.nc").load()
    assert made["north_up"].lat[0] < made["north_up"].lat[-1]
    assert np.array_equal(made["north_up"].t2m.values[:, ::-1], plain.t2m.values)
    assert float(made["wrapped"].lon[0]) == -160.0
    assert np.array_equal(made["wrapped"].t2m.values, plain.t2m.values)


def test_init_and_steps_choose_the_window_and_the_length(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--init", "2020-01-10T12:00", "--steps", "9")
    assert result.code == 0, result.err
    assert "fed back" in result.err
    with xr.open_dataset(tmp_path / "f.nc") as made:
        assert (made.sizes["time"], str(made.time.values[0])[:16]) == (9, "2020-01-10T18:00")
    # The forecast knows nothing of what follows its init: the file cut there gives the same.
    with xr.open_dataset(weather) as data:
        data.sel(time=slice(None, "2020-01-10T12:00")).to_netcdf(tmp_path / "cut.nc")
    assert pdr("predict", "cut.nc", "-o", "g.nc", "-m", weather_run, "--steps", "9").code == 0
    with xr.open_dataset(tmp_path / "f.nc") as f, xr.open_dataset(tmp_path / "g.nc") as g:
        assert np.array_equal(f.t2m.values, g.t2m.values)


def test_traffic_comes_back_as_netcdf_or_in_its_own_layout(traffic: Path, traffic_run: Path, tmp_path: Path) -> None:
    for name in ("f.nc", "f.h5"):
        assert pdr("predict", traffic, "-o", name, "-m", traffic_run).code == 0
    with xr.open_dataset(tmp_path / "f.nc") as made, h5py.File(tmp_path / "f.h5") as back:
        assert set(made.data_vars) == {"inflow", "outflow"}
        assert back["date"][:].tolist() == [b"2014011301", b"2014011302", b"2014011303", b"2014011304"]
        assert np.array_equal(back["data"][:, 1], made.outflow.values)


def test_video_comes_back_as_video(clip: Path, video_run: Path, tmp_path: Path) -> None:
    result = pdr("predict", clip, "-o", "future.mp4", "-m", video_run)
    assert result.code == 0, result.err
    assert video.read(tmp_path / "future.mp4").shape == (4, 1, 32, 32)
    assert pdr("predict", clip, "-o", "future.gif", "-m", video_run).code == 0
    assert pdr("predict", clip, "-o", "future.nc", "-m", video_run).code == 0


def test_without_m_the_newest_finished_run_is_used(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    assert pdr("predict", weather, "-o", "f.nc").code == 66
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(weather_run)
    unfinished = tmp_path / "runs" / "b"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes((weather_run / "model.safetensors").read_bytes())
    (unfinished / "metrics.jsonl").write_text('{"event": "step", "step": 1}\n')
    result = pdr("predict", weather, "-o", "f.nc")
    assert (result.code, "model runs/a" in result.out) == (0, True)
    assert "model runs/b" in pdr("predict", weather, "-o", "f.nc", "-m", "b").out


def test_preview_is_drawn(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    assert pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--preview", "f.png").code == 0
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_preview_as_gif_shows_what_was_observed_and_then_the_forecast(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    """The tiny model sees 4 frames; 3 are asked for; what followed is in the file, so a column of truth makes it wider."""
    for name, init in (("end", "2020-02-09T18:00"), ("known", "2020-01-10T12:00")):
        preview = ["--preview", f"{name}.gif", "--steps", "3", "--init", init]
        result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run, *preview)
        assert result.code == 0, result.err
    with Image.open(tmp_path / "known.gif") as known, Image.open(tmp_path / "end.gif") as end:
        assert (known.n_frames, end.n_frames) == (7, 7)
        assert known.width > 1.2 * end.width


def frames_in(path: Path) -> list[np.ndarray]:
    """Every frame of a video: [H, W, 3]."""
    with av.open(str(path)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_fields_leave_as_an_animation_that_knows_its_request(
    weather: Path, weather_run: Path, tmp_path: Path, suffix: str
) -> None:
    """4 frames are observed and 3 forecast; the truth, which the file holds, is not drawn: a forecast does not depend on it."""
    ask = ["predict", weather, "-o", f"f{suffix}", "-m", weather_run, "--init", "2020-01-10T12:00", "--steps", "3"]
    made = pdr(*ask)
    assert (made.code, "  drawn  " in made.out) == (0, True), made.err
    frames = frames_in(tmp_path / f"f{suffix}")
    assert len(frames) == 7
    assert all(np.abs(a.astype(int) - b).max() > 100 for a, b in itertools.pairwise(frames))
    assert "up to date" in pdr(*ask, "--skip-existing").out
    assert "up to date" not in pdr(*ask[:-1], "4", "--skip-existing").out
    assert "8 frames, all of which decode" in pdr("verify", f"f{suffix}").out
    assert "a drawing of t2m, without the numbers" in pdr("verify", f"f{suffix}").out
    for command in (["inspect"], ["train", "--preset", "demo", "-o", "never", "--data"]):
        read = pdr(*command, f"f{suffix}")
        assert (read.code, "is a drawing of t2m by pdr" in read.last) == (65, True), read.err


def test_traffic_is_drawn_too_and_clips_stay_clips(
    traffic: Path, traffic_run: Path, clip: Path, video_run: Path, tmp_path: Path
) -> None:
    """Both flows under one another, on even sides, which players take; a forecast clip has the clip's own size."""
    assert pdr("predict", traffic, "-o", "t.mp4", "-m", traffic_run).code == 0
    height, width, _ = frames_in(tmp_path / "t.mp4")[0].shape
    assert (height % 2, width % 2, height > 1.3 * width) == (0, 0, True)
    assert pdr("predict", clip, "-o", "c.mp4", "-m", video_run).code == 0
    assert frames_in(tmp_path / "c.mp4")[0].shape == (32, 32, 3)
    assert "drawing" not in pdr("verify", "c.mp4").out
    assert pdr("predict", clip, "-o", "c.npz", "-m", video_run, "--preview", "p.gif").code == 0
    assert "is a drawing of gray by pdr" in pdr("inspect", "p.gif").last
    assert pdr("inspect", "c.mp4").code == 0


def test_a_preview_may_be_a_video(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    """With the truth beside the forecast, as in a GIF."""
    ask = ["predict", weather, "-m", weather_run, "--init", "2020-01-10T12:00"]
    assert pdr(*ask, "-o", "f.nc", "--preview", "p.mp4").code == 0
    assert pdr(*ask, "-o", "f.mp4").code == 0
    assert frames_in(tmp_path / "p.mp4")[0].shape[1] > 1.2 * frames_in(tmp_path / "f.mp4")[0].shape[1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.nc", "-o", "f.nc"], 66, "no file nowhere.nc"),
        (["{weather}", "-o", "nowhere/f.nc"], 73, "mkdir -p"),
        (["{weather}", "-o", "{weather}"], 2, "also an input"),
        (["{weather}", "-o", "f.xyz"], 2, "names no format"),
        (["{weather}", "-o", "f.mp4", "--interval", "0.8"], 2, "do not hold intervals"),
        (["{weather}", "-o", "f.mp4", "--every-init"], 2, "--every-init writes"),
        (["{weather}", "-o", "f.nc", "--preview", "f.svg"], 2, "an animation as .gif or .mp4, not f.svg"),
        (["{weather}", "-o", "f.nc", "--var", "t3m=x"], 2, "it has t2m"),
        (["{weather}", "-o", "f.nc", "--var", "t2m=t2n"], 65, "Did you mean 't2m'"),
        (["{weather}", "-o", "f.nc", "--init", "1999-01-01"], 65, "runs from 2020-01-01 00:00"),
        (["{weather}", "-o", "f.nc", "--device", "cuda"], 69, "--device cpu"),
        (["{weather}", "-o", "f.nc", "-m", "nowhere"], 66, "no model nowhere"),
    ],
)
def test_mistakes_are_one_line_with_their_code(
    weather: Path, weather_run: Path, arguments: list[str], code: int, says: str
) -> None:
    given = [a.format(weather=weather) for a in arguments]
    result = pdr("predict", *([] if "-m" in given else ["-m", weather_run]), *given)
    assert (result.code, result.out) == (code, "")
    assert says in result.last
    assert not Path("f.nc").exists()


def test_data_that_do_not_fit_are_refused_with_what_was_found(weather_run: Path, tmp_path: Path) -> None:
    holed = field(20, 13, 15)
    holed[18, :2, :3] = np.nan
    cases = {
        "needs 4 steps, found 3": weather_file(tmp_path / "short.nc", 3, size=(13, 15)),
        "its grid has 12 x 14 cells; expected 13 x 15": weather_file(tmp_path / "grid.nc", 20),
        "steps of 3 h, but the model was trained on steps of 6 h": weather_file(
            tmp_path / "step.nc", 20, hours=3, size=(13, 15)
        ),
        "6 of 780 values of t2m are missing": weather_file(tmp_path / "nan.nc", values=holed, steps=20),
        "1 time is missing": weather_file(tmp_path / "gap.nc", 20, size=(13, 15), drop=[18]),
        "variable 't2m' is not there": weather_file(tmp_path / "name.nc", 20, size=(13, 15), name="rain"),
    }
    for says, path in cases.items():
        result = pdr("predict", path, "-o", "f.nc", "-m", weather_run)
        assert (result.code, says in result.last) == (65, True), result.last
        assert not Path("f.nc").exists()


def test_another_region_of_the_same_size_is_another_grid(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.assign_coords(lat=data.lat + 1.25).to_netcdf(tmp_path / "shifted.nc")
    result = pdr("predict", "shifted.nc", "-o", "f.nc", "-m", weather_run)
    assert (result.code, "E_GRID_MISMATCH" in result.last) == (65, True)


def test_a_gap_before_the_window_does_no_harm(weather_run: Path, tmp_path: Path) -> None:
    path = weather_file(tmp_path / "old_gap.nc", 30, size=(13, 15), drop=[5, 6])
    assert pdr("predict", path, "-o", "f.nc", "-m", weather_run).code == 0


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m pdr_cli presets taxibj | true", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_slots_of_a_model_and_an_input_must_agree(traffic_run: Path, tmp_path: Path) -> None:
    half_hours = traffic_file(tmp_path / "half.h5", 3, slots=48)
    result = pdr("predict", half_hours, "-o", "f.nc", "-m", traffic_run)
    assert (result.code, "steps of 30 min" in result.last) == (65, True)


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_climate_calendars_are_kept_from_end_to_end(
    make_run: Callable[..., Path], tmp_path: Path, calendar: str
) -> None:
    times = xr.date_range("2000-01-01", periods=160, freq="D", calendar=calendar, use_cftime=True)
    with xr.open_dataset(weather_file(tmp_path / "plain.nc")) as data:
        data.load().assign_coords(time=times).to_netcdf(tmp_path / "climate.nc")
    run = make_run(tmp_path / "climate.nc")
    assert pdr("predict", "climate.nc", "-o", "f.nc", "-m", run, "--init", "2000-02-28").code == 0
    with xr.open_dataset(tmp_path / "f.nc", decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as made:
        days = [(t.month, t.day) for t in made.time.values]
        assert made.time.encoding["calendar"] == calendar
    assert days[:2] == {"360_day": [(2, 29), (2, 30)], "noleap": [(3, 1), (3, 2)]}[calendar]
    assert pdr("evaluate", "climate.nc", "-m", run).code == 0


def test_monthly_fields_are_forecast_by_the_month(make_run: Callable[..., Path], tmp_path: Path) -> None:
    times = np.arange("2000-01", "2013-05", dtype="datetime64[M]").astype("datetime64[ns]")
    with xr.open_dataset(weather_file(tmp_path / "plain.nc")) as data:
        data.load().assign_coords(time=times).to_netcdf(tmp_path / "monthly.nc")
    run = make_run(tmp_path / "monthly.nc")
    assert pdr("predict", "monthly.nc", "-o", "f.nc", "-m", run).code == 0
    with xr.open_dataset(tmp_path / "f.nc") as made:
        assert [str(t)[:10] for t in made.time.values] == ["2013-05-01", "2013-06-01", "2013-07-01", "2013-08-01"]
