"""What is fuzzed: a good file of each kind, and how the commands read it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from pdr_cli import config
from pdr_cli.commands import inspect, verify
from pdr_cli.data import cameras, formats
from pdr_cli.data import series as fields
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import camerafile, forecasts, scenefile, stored
from pdr_cli.data.series import make_series, read_frames
from pdr_cli.inference import model as inference
from pdr_cli.models import openstl
from pdr_cli.runs import modelfile
from pdr_cli.runs.openstl import load_openstl
from pdr_cli.training import state
from tests import builders
from tests.data.formats.test_cf import ABOUT
from tests.data.formats.test_cf import forecast as forecast_series
from tests.models.builders import build_predictor
from tests.reliability.fuzz import Subject

Parts = list[np.ndarray | str]
STEPS = 12


# -- how they are read


def read_input(path: Path, color: str = "gray") -> Parts:
    """All frames of an input, and what goes with them, that must fit together."""
    found: Parts = []
    for series in formats.open_series(formats.find_inputs([path]), formats.ReadOptions(color=color)):
        frames = read_frames(series, 0, series.sizes["time"])
        assert series.time.dtype.kind != "M" or not np.isnat(series.time.values).any()
        times = time_axis.seconds(series.time.values)
        assert frames.shape == fields.shape(series) == (len(times), len(fields.names(series)), *fields.size(series))
        assert (len(times) > 0, bool(np.isfinite(times).all())) == (True, True)
        for dim in ("y", "x"):
            side = fields.side(series, dim)
            assert side is None or len(side) == series.sizes[dim]
        found += [frames, times, *fields.names(series), *fields.units(series)]
    with contextlib.redirect_stdout(io.StringIO()):
        inspect.run(path, preset=None, reading=formats.ReadOptions(), as_json=True)
    return found


def read_colors(path: Path) -> Parts:
    return read_input(path, "rgb")


def read_pixels(path: Path) -> Parts:
    """The frames of a clip alone."""
    return [p for p in read_input(path) if np.ndim(p) == 4]


def read_forecast(path: Path) -> Parts:
    """A forecast as `pdr verify` and `pdr evaluate` read it: its numbers, if they are those that were written."""
    with contextlib.redirect_stdout(io.StringIO()):
        verify.run(path, as_json=True)
    stored.provenance(path)
    if formats.detect(path) in ("netcdf", "zarr"):
        given = forecasts.read([path], ["t2m"])
        given.frames(given.inits[0], np.asarray(given.inits[:1]) + np.timedelta64(6, "h"))
    with stored.fields(path) as every:
        return [np.concatenate(list(f.blocks())) for f in every.values()]


def read_model(path: Path) -> Parts:
    read = modelfile.read(path)
    modelfile.read_header(path)
    inference.load(path, "cpu")
    return [read.card.to_json(), *(w.numpy() for w in read.weights.values()), read.climatology.coefficients]


def read_state(path: Path) -> Parts:
    position, tensors = state.read(path)
    return [str(position), *(t.numpy() for t in tensors.values())]


def read_pth(path: Path) -> Parts:
    weights = load_openstl(path)
    openstl.from_openstl(weights, (4, 2, 16, 32))
    return [t.detach().numpy() for t in weights.values()]


def read_preset(path: Path) -> Parts:
    return [config.dump(config.load(str(path)))]


def read_scenes(path: Path) -> Parts:
    """All scenes of a file, as `pdr verify` reads them; a file that is damaged may be taken for traffic."""
    with contextlib.redirect_stdout(io.StringIO()):
        verify.run(path, as_json=True)
    file = scenefile.read(path)
    return [part for number in range(len(file)) for part in vars(file.scene(number)).values() if np.ndim(part)]


def read_camera(path: Path) -> Parts:
    found = camerafile.read(path)
    return [found.times, found.poses]


# -- good ones


def _fields(suffix: str, **how: object) -> Callable[[Path], Path]:
    def make(base: Path) -> Path:
        path = base.with_suffix(suffix)
        plain = builders.weather_file(base.with_name("source.nc"), STEPS, size=(6, 7))
        with xr.open_dataset(plain) as data:
            data.load()
        if suffix == ".zarr":
            data.to_zarr(path, consolidated=how.get("zarr_format") == 2, **how)  # type: ignore[call-overload]
        else:
            data.to_netcdf(path, **how)  # type: ignore[call-overload]
        plain.unlink()
        return path

    return make


def _packed(base: Path) -> Path:
    encoding = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768, "zlib": True}
    return _fields(".nc", encoding={"t2m": encoding})(base)


def _forecast(suffix: str, **how: int) -> Callable[[Path], Path]:
    def make(base: Path) -> Path:
        one = forecast_series()
        if suffix == ".h5":
            times = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
            one = make_series(
                one.values, times, {"t2m": {}}, {}, kind="traffic", file_attrs={"slots_per_day": 24, "first_slot": 1}
            )
        about = ABOUT | {"pdr_data_sha256": stored.data_sha256([one.values[:, 0]]), "pdr_version": "1"}
        formats.write(one, base.with_suffix(suffix), about, **how)
        return base.with_suffix(suffix)

    return make


def _clip(suffix: str) -> Callable[[Path], Path]:
    def make(base: Path) -> Path:
        frames = np.stack([builders.moving_square(i, (24, 32)) for i in range(STEPS)])[:, None]
        clip = make_series(frames.astype(np.float32), np.arange(STEPS) / 25, {"gray": {}}, {}, kind="video")
        formats.write(clip, base.with_suffix(suffix), {"title": "a clip", "pdr_version": "1"})
        return base.with_suffix(suffix)

    return make


def _npz(compressed: bool) -> Callable[[Path], Path]:
    return lambda base: builders.taxibj_npz(base.with_suffix(".npz"), 3, 2, compressed=compressed)


def _pictures(suffix: str) -> Callable[[Path], Path]:
    def make(base: Path) -> Path:
        for number in range(4):
            builders.picture(base / f"p_{number:02d}.{suffix}", builders.moving_square(number))
        return base

    return make


def _kth(base: Path) -> Path:
    builders.kth_video(base, "person01_boxing_d1", STEPS)
    (base / "00sequences.txt").write_text("person01_boxing_d1\t\tframes\t1-6, 7-12\n")
    return base


def _human36m(base: Path) -> Path:
    return builders.human36m_folder(base, ["images/S1_a_,1,36", "images/S1_b_,6,41"], ["images/S9_a_,1,36"])


def _pth(base: Path) -> Path:
    import torch

    torch.manual_seed(0)
    sizes = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0, "size": (16, 32)}
    torch.save(build_predictor("tau", 4, 2, **sizes).state_dict(), base.with_suffix(".pth"))
    return base.with_suffix(".pth")


def _camera(base: Path) -> Path:
    path = cameras.orbit(20, cameras.even_times(3))
    frames = [{"time": t, "world_to_camera": p.tolist()} for t, p in zip(path.times.tolist(), path.poses, strict=True)]
    base.with_suffix(".json").write_text(json.dumps({"focal": path.focal, "frames": frames}))
    return base.with_suffix(".json")


def _preset(base: Path) -> Path:
    base.with_suffix(".toml").write_text((config.presets_folder() / "demo.toml").read_text())
    return base.with_suffix(".toml")


def _of_run(name: str) -> Callable[[Path], Path]:
    """A file of the run that the tests have put beside the others."""
    return lambda base: base.parent / "run" / name


CLASSIC = {"format": "NETCDF3_CLASSIC", "engine": "netcdf4"}
OFFSET64 = {"format": "NETCDF3_64BIT", "engine": "netcdf4"}
INPUT = (65, 66)  # a folder may have no data left in it

SUBJECTS: dict[str, Subject] = {
    "netcdf4": Subject(_fields(".nc", encoding={"t2m": {"zlib": True}}), read_input),
    "netcdf4-packed": Subject(_packed, read_input),
    "netcdf3": Subject(_fields(".nc", **CLASSIC), read_input),
    "netcdf3-64bit": Subject(_fields(".nc", **OFFSET64), read_input),
    "zarr2": Subject(_fields(".zarr", zarr_format=2), read_input),
    "zarr3": Subject(_fields(".zarr", zarr_format=3), read_input),
    "traffic": Subject(lambda base: builders.traffic_file(base.with_suffix(".h5"), 2), read_input),
    "scenes": Subject(lambda base: builders.scenes_file(base.with_suffix(".h5"), 3, size=(2, 2, 8, 9)), read_scenes),
    "camera": Subject(_camera, read_camera),
    "npz": Subject(_npz(False), read_input),
    "npz-compressed": Subject(_npz(True), read_input, checked=True),
    "mp4": Subject(lambda base: builders.video_file(base.with_suffix(".mp4"), STEPS), read_input),
    "mp4-ours": Subject(_clip(".mp4"), read_pixels, checked=True),
    "avi": Subject(lambda base: builders.kth_video(base, "person01_boxing_d1", STEPS), read_input),
    "gif": Subject(_clip(".gif"), read_input),
    "png": Subject(_pictures("png"), read_pixels, checked=True, codes=INPUT),
    "jpeg": Subject(_pictures("jpg"), read_input, codes=INPUT),
    "kth-list": Subject(_kth, read_input, only="*.txt"),
    "human36m": Subject(_human36m, read_colors, codes=INPUT),
    "forecast-netcdf": Subject(_forecast(".nc"), read_forecast, checked=True),
    "forecast-netcdf-plain": Subject(_forecast(".nc", compress=0), read_forecast, checked=True),
    "forecast-zarr": Subject(_forecast(".zarr"), read_forecast, checked=True),
    "forecast-hdf5": Subject(_forecast(".h5"), read_forecast, checked=True),
    "forecast-npz": Subject(_forecast(".npz"), read_forecast, checked=True),
    "model": Subject(_of_run("model.safetensors"), read_model, checked=True),
    "state": Subject(_of_run("state/last.safetensors"), read_state, checked=True),
    "pth": Subject(_pth, read_pth, codes=(65, 78)),  # 78: sizes that no network has
    "preset": Subject(_preset, read_preset, codes=(78,)),
}
