"""A file of others runs nothing: each would write a marker if one of its ways to run code were open."""

from __future__ import annotations

import bz2
import contextlib
import gc
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pdr_cli
from pdr_cli import choices, families
from pdr_cli.data import formats
from pdr_cli.data.formats import stored
from pdr_cli.data.series import read_frames
from pdr_cli.errors import CheckpointError, PdrError, UntrustedCodeError
from pdr_cli.runs import modelfile
from pdr_cli.runs.openstl import load_openstl
from tests.builders import weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings

pytestmark = pytest.mark.filterwarnings("ignore")
MARK = Path("ran")
CODE = f"""
open({str(MARK)!r}, "w").close()
import torch
class Net(torch.nn.Module):
    def __init__(self, in_steps, channels, **others):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(channels, 1, 1))
    def forward(self, x):
        return self.gain * x[:, -1:].expand_as(x)
"""


class Payload:
    """Writes the marker where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(MARK), "w")


@pytest.fixture(autouse=True)
def nothing_ran(away: None, tmp_path: Path) -> Iterator[None]:
    yield
    gc.collect()  # what zarr leaves of a listing that was refused is reported here, and not in another test
    assert not (tmp_path / MARK).exists()


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that lies in the current folder, and on PYTHONPATH too, which is the worst case."""
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("evil", None)
    families.imported.cache_clear()


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A model file with another card, and the SHA-256 that belongs to it."""
    with safe_open(path, framework="pt") as handle:
        header = dict(handle.metadata())
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    card = json.loads(header["pdr"])
    change(card)
    header |= {"pdr": json.dumps(card)}
    del header["sha256"]
    save_file(tensors, path, header | {"sha256": modelfile.digest(tensors, header)})
    return path


@pytest.fixture(params=["backbone", "adapter", "fusion"])
def hostile(request: pytest.FixtureRequest, weather_run: Path, evil: None) -> Path:
    """A run whose model and configuration name the module."""
    shutil.copytree(weather_run, "run")
    with_header(Path("run/model.safetensors"), lambda card: card["config"]["model"].update({request.param: "evil:Net"}))
    text = Path("run/config.toml").read_text(encoding="utf-8").splitlines()
    lines = [f'{request.param} = "evil:Net"' if line.startswith(f"{request.param} = ") else line for line in text]
    Path("run/config.toml").write_text("\n".join(lines), encoding="utf-8")
    return Path("run")


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "DATA", "-m", "run", "-o", "a.nc"),
        ("predict", "DATA", "-m", "run", "-o", "a.nc", "--fallback", "last-1"),
        ("predict", "DATA", "-m", "run", "-o", "a.nc", "--every-init"),
        ("evaluate", "DATA", "-m", "run"),
        ("export", "-m", "run", "-o", "a.onnx"),
        ("export", "-m", "run", "-o", "a.nc", "--input", "DATA"),
        ("train", "--resume", "-o", "run", "--steps", "6"),
        ("train", "--preset", "run/config.toml", "--data", "DATA", "-o", "again"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_model_or_a_run_that_names_a_module_is_refused(
    hostile: Path, weather: Path, command: tuple[str, ...]
) -> None:
    result = pdr(*(str(weather) if part == "DATA" else part for part in command))
    assert (result.code, "E_UNTRUSTED_CODE" in result.last) == (78, True), result.err
    assert all(part in result.last for part in ("evil:Net", "evil.py", "--trust-code", "PDR_TRUST_CODE=evil"))


def test_what_only_looks_at_a_model_does_not_import_it(hostile: Path, weather: Path) -> None:
    inspected = pdr("inspect", hostile)
    assert inspected.code == 0, inspected.err
    verified = pdr("verify", hostile)
    assert verified.code == 0, verified.err
    assert "the structure of evil:Net is not checked" in verified.out
    fitting = pdr("inspect", weather, "--for", hostile)
    assert fitting.code == 0, fitting.err


def test_the_python_api_asks_too(hostile: Path) -> None:
    with pytest.raises(UntrustedCodeError, match="evil:Net is code of the module evil"):
        pdr_cli.load(hostile)


def test_a_predictor_of_an_init_from_is_not_imported(weather: Path, hostile: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--init-from", "run", "--dry-run", *tiny_settings())
    assert result.code in (0, 65), result.err


@pytest.mark.parametrize("key", ["train.loss", "model.backbone"])
def test_a_preset_that_names_a_module_is_refused(weather: Path, evil: None, key: str) -> None:
    table, name = key.split(".")
    Path("theirs.toml").write_text(f'extends = "demo"\n[{table}]\n{name} = "evil:Net"\n')
    Path("mine.toml").write_text('extends = "theirs.toml"\n')
    for command in (("train", "-o", "run", "--data", weather), ("bench-train", "--size", "8", "8", "--channels", "1")):
        result = pdr(*command, "--preset", "mine.toml")
        assert (result.code, "E_UNTRUSTED_CODE" in result.last) == (78, True), result.err


def test_an_ablation_of_a_folder_that_names_a_module_is_refused(evil: None) -> None:
    Path("run").mkdir()
    result = pdr("presets", "demo")
    Path("run/config.toml").write_text(result.out, encoding="utf-8")
    plan = {"ablation": "evil:Net", "about": "", "seeds": [0], "steps": 1, "results": {}}
    Path("run/ablation.json").write_text(json.dumps(plan | {"variants": {"a": {"model.backbone": "evil:Net"}}}))
    result = pdr("train", "--resume", "-o", "run")
    assert result.code in (66, 78), result.err


@pytest.mark.parametrize(
    "way", ["option", *(pytest.param(way, marks=pytest.mark.slow) for way in ("all", "module", "again"))]
)
def test_the_user_may_allow_the_code(weather: Path, evil: None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", "--preset", "demo", "--data", weather, "--backbone", "evil:Net", "--fusion", "none", "-o", "run")
    kept = ("--set", "train.fallback=false")  # after two steps the anchor alone may be better
    assert pdr(*train, "--steps", "2", "-q", *kept).code == 0, "the user's own word on the command line"
    MARK.unlink()
    if way in ("all", "module"):
        monkeypatch.setenv("PDR_TRUST_CODE", "1" if way == "all" else "other, evil")
    more = ("--trust-code",) if way == "option" else ()
    resumed = ("--backbone", "evil:Net") if way == "again" else more
    assert pdr("train", "--resume", "-o", "run", "--steps", "3", *resumed).code == 0
    predicted = pdr("predict", weather, "-m", "run", "-o", "a.nc", *more)
    assert predicted.code == (78 if way == "again" else 0), predicted.err
    if way == "option":
        assert pdr("evaluate", weather, "-m", "run", *more).code == 0
        assert pdr("export", "-m", "run", "-o", "a.pt2", *more).code == 0


@pytest.mark.parametrize("value", ["", "0", "evi", "evil.other"])
def test_another_value_of_the_variable_allows_nothing(
    hostile: Path, weather: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDR_TRUST_CODE", value)
    assert pdr("predict", weather, "-m", hostile, "-o", "a.nc").code == 78


def test_the_log_names_the_code_that_runs(weather: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quiet.py").write_text(CODE.replace("open(", "print(", 1).replace(', "w").close()', ', end="")'))
    monkeypatch.syspath_prepend(tmp_path)
    families.FOREIGN.discard("quiet")
    chosen = ("--backbone", "quiet:Net", "--fusion", "none", "--steps", "1", "-o", "run")
    result = pdr("train", "--preset", "demo", "--data", weather, *chosen)
    assert f"--backbone quiet:Net runs {tmp_path / 'quiet.py'}" in result.err


def test_python_m_does_not_import_what_lies_in_the_current_folder(weather_run: Path, weather: Path) -> None:
    """Not the module that a model names, nor modules of the names of libraries, nor a package that lies unpacked."""
    shutil.copytree(weather_run, "run")
    with_header(Path("run/model.safetensors"), lambda card: card["config"]["model"].update(backbone="evil:Net"))
    for name in ("evil", "numpy", "torch", "typer", "safetensors", "xarray", "json", "matplotlib", "eccodes", "rich"):
        Path(f"{name}.py").write_text(CODE)
    Path("evil-1.0.dist-info").mkdir()
    Path("evil-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    points = "[pdr.predictors]\nevil = evil:Net\n[pdr.formats]\nevil = evil:Net\n"
    Path("evil-1.0.dist-info/entry_points.txt").write_text(points)
    environment = os.environ | {"PYTHONPATH": str(Path(pdr_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pdr_cli", "predict", str(weather), "-m", "run", "-o", "a.nc"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert result.returncode == 78, result.stderr
    assert "E_UNTRUSTED_CODE" in result.stderr


def test_a_package_that_lies_unpacked_in_the_current_folder_announces_nothing(
    evil: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder on PYTHONPATH, as where it ends with a colon."""
    Path("evil-1.0.dist-info").mkdir()
    Path("evil-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    Path("evil-1.0.dist-info/entry_points.txt").write_text("[pdr.formats]\nevil = evil:Net\n")
    monkeypatch.setenv("PDR_TRUST_CODE", "")
    assert "evil" not in choices.FORMATS.names()
    Path("a.bin").write_bytes(b"of no format")
    assert pdr("inspect", "a.bin").code == 65


def torch_file(path: Path) -> Path:
    torch.save({"state_dict": {"a": Payload()}}, path)
    return path


def pickle_file(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"state_dict": Payload()}))
    return path


def scripted(path: Path) -> Path:
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    return path


@pytest.mark.parametrize("make", [torch_file, pickle_file, scripted])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_weights_of_other_programs(tmp_path: Path, make: Callable[[Path], Path], suffix: str, weather: Path) -> None:
    path = make(tmp_path / f"a{suffix}")
    with pytest.raises(CheckpointError):
        load_openstl(path)
    assert pdr("train", "--preset", "demo", "--data", weather, "--init-from", path, "-o", "run").code == 65
    assert pdr("predict", weather, "-m", path, "-o", "a.nc").code == 65
    assert pdr("evaluate", weather, "-m", path).code in (65, 66)
    assert pdr("inspect", path).code == 65
    assert pdr("evaluate", weather, "--lpips-weights", path, "--metrics", "lpips").code in (2, 65, 66)


def arrays_of(**objects: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **objects)
    return stream.getvalue()


@pytest.mark.parametrize("key", ["data", "X_train", "Y_test", "times"])
def test_an_npz_of_objects(tmp_path: Path, key: str) -> None:
    frames = np.zeros((4, 4, 1, 8, 8), "f4")
    plain = {"X_train": frames, "Y_train": frames, "X_test": frames, "Y_test": frames}
    (tmp_path / "a.npz").write_bytes(arrays_of(**plain | {key: np.array([Payload()] * 4, object)}))
    with contextlib.suppress(PdrError):  # further arrays are not of interest
        read_all(tmp_path / "a.npz")
    pdr("verify", "a.npz")
    pdr("inspect", "a.npz")


def read_all(path: Path) -> None:
    for series in formats.open_series([path]):
        read_frames(series, 0, series.sizes["time"])


def zarr_store(path: Path, name: str, **metadata: Any) -> Path:
    """A store of format 2 with an array of pickles beside, or in place of, its fields."""
    about = {"zarr_format": 2, "order": "C", "fill_value": None, "compressor": None, "filters": None}
    sides = {"time": np.arange(8.0), "lat": np.arange(4.0), "lon": np.arange(4.0)}
    units = {"time": "hours since 2000-01-01", "lat": "degrees_north", "lon": "degrees_east"}
    arrays = {n: (v.astype("<f8"), [n], {"units": units[n]}) for n, v in sides.items()}
    arrays["t2m"] = (np.ones((8, 4, 4), "<f4"), ["time", "lat", "lon"], {"units": "K"})
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    if name not in arrays:
        arrays[name] = (np.zeros(8, "<f4"), ["time"], {})
    for each, (values, dims, attrs) in arrays.items():
        folder = path / each
        folder.mkdir()
        array = about | {"shape": values.shape, "chunks": values.shape, "dtype": values.dtype.str}
        array |= metadata if each == name else {}
        (folder / ".zarray").write_text(json.dumps(array))
        (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims} | attrs))
        content = pickle.dumps(Payload()) if each == name else values.tobytes()
        (folder / ".".join("0" * values.ndim)).write_bytes(content)
    return path


PICKLE = {"id": "pickle", "protocol": 5}
TEXT = {"id": "vlen-utf8"}


@pytest.mark.parametrize("name", ["t2m", "time", "label"])
@pytest.mark.parametrize(
    "metadata",
    [
        {"filters": [PICKLE]},
        {"compressor": PICKLE},
        {"dtype": "|O", "filters": [TEXT, PICKLE]},
        {"dtype": "|O", "filters": [TEXT], "compressor": PICKLE},
        {"dtype": "|O", "filters": [PICKLE]},
    ],
    ids=lambda metadata: "-".join(metadata),
)
def test_a_zarr_array_of_pickles(
    tmp_path: Path, name: str, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions of numcodecs decode them, as newer ones do where the environment allows it."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path = zarr_store(tmp_path / "a.zarr", name, **metadata)
    for command in (("inspect", path), ("inspect", path, "--var", "t2m"), ("verify", path)):
        pdr(*command)
    with pytest.raises(PdrError):
        read_all(path)
    archive = Path(shutil.make_archive(str(tmp_path / "a.zarr"), "zip", path))
    with pytest.raises(PdrError):
        read_all(archive)
    with contextlib.suppress(PdrError), stored.fields(path) as fields:
        fields["t2m"].read(0, 1)


def test_a_netcdf_file_with_pickles_in_its_attributes(tmp_path: Path, weather_run: Path) -> None:
    path = weather_file(tmp_path / "a.nc")
    with h5py.File(path, "a") as file:
        file.attrs["pickle"] = np.void(pickle.dumps(Payload()))
        file["air" if "air" in file else next(iter(file))].attrs["flag_values"] = np.void(pickle.dumps(Payload()))
    pdr("inspect", path)
    pdr("predict", path, "-m", weather_run, "-o", "b.nc")


def test_a_file_of_one_name_and_another_content(tmp_path: Path, weather_run: Path) -> None:
    """A program that draws the picture is not started, and neither is one that a play list or an archive names."""
    (tmp_path / "frames").mkdir()
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(ran) (w) file closefile showpage\n"
    for number in range(30):
        (tmp_path / "frames" / f"{number:03d}.png").write_bytes(postscript)
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin64c"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path / MARK}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path / 'bin'}:{before}"
    try:
        assert pdr("inspect", "frames").code == 65
    finally:
        os.environ["PATH"] = before
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    assert pdr("inspect", "a.mp4").code == 65


@pytest.mark.parametrize("name", ["../ran", "/tmp/../ran", "a/../../ran"])
def test_an_archive_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside").mkdir()
    with zipfile.ZipFile("inside/a.zip", "w") as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        archive.writestr(name, "written")
    pdr("inspect", "inside/a.zip")
    pdr("verify", "inside/a.zip")
    assert not Path("inside/ran").exists()


def test_a_bomb_is_not_unpacked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GB of zeros in a kilobyte: refused without the memory that it claims."""
    packed = bz2.BZ2Compressor()
    block = b"\0" * 2**24
    content = b"".join(packed.compress(block) for _ in range(16)) + packed.flush()
    (tmp_path / "a.nc.bz2").write_bytes(content)
    assert pdr("inspect", "a.nc.bz2").code == 65


def test_an_onnx_model_is_not_opened(tmp_path: Path, weather: Path) -> None:
    """Its external data could name any file, and its operators a library."""
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x03pdr" + b"location" + b"../../etc/passwd")
    assert pdr("predict", weather, "-m", "a.onnx", "-o", "a.nc").code == 65
    assert pdr("inspect", "a.onnx").code == 65


def test_a_header_is_text_and_nothing_more(weather_run: Path, weather: Path) -> None:
    """Names that reach into objects, and places of ours that are no predictors."""
    for name in ("os:system", "pdr_cli.process:main", "builtins:exec", "subprocess:getoutput", "evil:__class__.mro"):
        shutil.copy(weather_run / "model.safetensors", "a.safetensors")
        with_header(Path("a.safetensors"), lambda card, name=name: card["config"]["model"].update(backbone=name))  # type: ignore[misc]
        assert pdr("predict", weather, "-m", "a.safetensors", "-o", "a.nc").code == 78


def test_a_folder_of_a_program_for_pictures_is_text(weather_run: Path, weather: Path) -> None:
    """matplotlib reads `matplotlibrc` of the current folder, which may name a module for its backend."""
    Path("evil.py").write_text(CODE)
    Path("matplotlibrc").write_text("backend: module://evil\n")
    environment = os.environ | {
        "PYTHONPATH": f"{Path(pdr_cli.__file__).parents[1]}:{Path.cwd()}",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-m", "pdr_cli", "predict", str(weather), "-m", str(weather_run), "-o", "a.nc"]
    result = subprocess.run(
        [*command, "--preview", "a.png"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
