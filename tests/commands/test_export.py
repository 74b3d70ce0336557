import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.choices import LATENT, PREDICTORS
from pdr_cli.errors import UsageError
from pdr_cli.inference.header import read_header
from pdr_cli.runs import modelfile
from pdr_cli.runs.programs import Program
from pdr_cli.system import hashes
from tests.builders import weather_file
from tests.cli import pdr
from tests.conftest import CALIBRATED

BLOCK = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Absent())
"""
ROUNDINGS = 4 * 2**-23  # relative to the largest value: about 280 K, in fields that vary by less than one


@pytest.fixture(scope="module")
def dated_run(make_run: Callable[..., Path], longer_weather: Path) -> Path:
    """A calibrated run whose network reads the calendar, and departs from the climatology."""
    network = ["--backbone", "unet", "--set", "anchor=climatology", "--calendar", "hour,weekday,day-of-year,sun"]
    return make_run(longer_weather, *CALIBRATED, *network)


Exported = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The program of a run with a suffix, made when first asked for; the tests only read it."""

    @functools.cache
    def make(run: Path, suffix: str) -> Path:
        if suffix == ".onnx":
            pytest.importorskip("onnxruntime")
        made = tmp_path_factory.mktemp("exported") / f"model{suffix}"
        result = pdr("export", "-m", run, "-o", made, "-q")
        assert (result.code, result.err, "verified in" in result.out) == (0, "", True), result.err
        return made

    return make


def test_onnx_takes_any_batch_in_data_units(weather: Path, plain_run: Path, exported: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported(plain_run, ".onnx"), providers=["CPUExecutionProvider"])
    with xr.open_dataset(weather) as data:
        window = data.t2m.values[-4:][None, :, None]
        forecast = pdr_cli.load(plain_run).predict(data).t2m.values[:, None]
    (out,) = session.run(["forecast"], {"observed": np.repeat(window, 5, axis=0)})
    assert np.abs(out[4] - forecast).max() < 1e-3  # kelvin, of about 280


def predicted(data: Path, model: Path, *options: str) -> xr.Dataset:
    """The forecast that `pdr predict` writes."""
    result = pdr("predict", data, "-m", model, "-o", "forecast.nc", *options)
    assert result.code == 0, result.err
    with xr.open_dataset("forecast.nc") as made:
        return made.load()


def program_of(program: Path) -> Program:
    """What an exported file says of its program."""
    found = read_header(program).program
    assert found is not None
    return found


def assert_alike(made: xr.Dataset, own: xr.Dataset) -> None:
    """Two forecasts of other arithmetic: the same layout and attributes, and numbers to a few roundings of float32."""
    assert (made.sizes, list(made.variables)) == (own.sizes, list(own.variables))
    for name, field in own.data_vars.items():
        assert float(np.abs(made[name] - field).max()) <= ROUNDINGS * float(np.abs(field).max()), name
    other = {"source", "history", "date_created", "pdr_checkpoint_sha256", "pdr_data_sha256", "pdr_request_id"}
    same = own.attrs.keys() - other
    assert {key: made.attrs.get(key) for key in same} == {key: own.attrs[key] for key in same}


WAYS = [["--steps", "2"], ["--steps", "9"], ["--every-init"], ["--interval", "0.8"]]


def test_predict_runs_onnx_without_torch(longer_weather: Path, dated_run: Path, exported: Exported) -> None:
    """One forecast, a second that is up to date, shorter and longer ones, a hindcast, intervals, a picture."""
    program = exported(dated_run, ".onnx")
    ways = [[], ["--skip-existing"], *WAYS, ["--preview", "f.png"]]
    commands = [
        ["predict", str(longer_weather), "-m", str(program), "-o", f"{max(0, i - 1)}.nc", *way]
        for i, way in enumerate(ways)
    ]
    script = f"""
absent = ["torch"]
{BLOCK}
from tests.cli import pdr
done = [pdr(*command) for command in {commands}]
assert [one.code for one in done] == [0] * len(done), [one.err for one in done]
assert "up to date" in done[1].out
assert "torch" not in sys.modules
"""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert Path("f.png").is_file()
    for number, way in enumerate([[], *WAYS]):
        with xr.open_dataset(f"{number}.nc") as made:
            assert_alike(made.load(), predicted(longer_weather, dated_run, *way))
    with xr.open_dataset("0.nc") as made:
        assert made.attrs["pdr_exported_from_sha256"] == hashes.sha256(dated_run / "model.safetensors")
        assert made.attrs["pdr_runtime"].startswith("onnxruntime ")
        assert made.attrs["pdr_checkpoint_sha256"] == hashes.sha256(program)
    assert pdr("verify", "0.nc").code == 0


def test_the_script_of_the_page_needs_neither_torch_nor_pdr(
    longer_weather: Path, dated_run: Path, exported: Exported
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "exported.md").read_text()
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert sum(bool(line.strip()) and not line.startswith("#") for line in text.splitlines()) <= 20
    Path("forecast.py").write_text("absent = ['torch', 'pdr_cli']\n" + BLOCK + text)
    arguments = [exported(dated_run, ".onnx"), longer_weather, "theirs.nc"]
    subprocess.run([sys.executable, "forecast.py", *arguments], check=True)
    own = predicted(longer_weather, dated_run)
    with xr.open_dataset("theirs.nc") as made:
        assert float(np.abs(made.t2m - own.t2m).max()) <= ROUNDINGS * float(own.t2m.max())
        assert (made.time.values == own.time.values).all()


def test_predict_runs_pt2(weather: Path, plain_run: Path, exported: Exported) -> None:
    """Beyond the horizon the coarse forecast is fed back, as in the model."""
    program = exported(plain_run, ".pt2")
    assert_alike(predicted(weather, program, "--steps", "9"), predicted(weather, plain_run, "--steps", "9"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PREDICTORS.own if name not in LATENT])  # those: test_latents.py
def test_every_predictor_forecasts_as_its_program(
    make_run: Callable[..., Path], weather: Path, exported: Exported, name: str
) -> None:
    # Its windows of 7 x 7 tile the latent plane.
    data = weather_file(Path("air.nc"), size=(14, 28)) if name == "swin" else weather
    run = make_run(data, "--backbone", name)
    program = exported(run, ".onnx")
    able = program_of(program)
    for steps, works in (("4", True), ("2", able.shorter), ("9", able.longer)):
        if works:
            made, own = (predicted(data, model, "--steps", steps) for model in (program, run))
            assert_alike(made, own)
        else:
            assert pdr("predict", data, "-m", program, "-o", "f.nc", "--steps", steps).code == 2


def test_evaluate_scores_a_program_as_its_model(weather: Path, plain_run: Path, exported: Exported) -> None:
    result = pdr("evaluate", weather, "-m", plain_run, "-m", exported(plain_run, ".onnx"), "--json")
    assert result.code == 0, result.err
    own, program = list(json.loads(result.out)["scores"].values())[:2]
    assert program["rmse"]["overall"] == pytest.approx(own["rmse"]["overall"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--members", "3"], 2, "--members 3"),
        (["--every", "0.5"], 2, "--every"),
        (["--precision", "bf16"], 2, "pdr export --precision"),
        (["--device", "cuda"], 69, "runs on the CPU"),
    ],
)
def test_what_needs_the_network_is_refused(
    weather: Path, plain_run: Path, exported: Exported, options: list[str], code: int, says: str
) -> None:
    result = pdr("predict", weather, "-m", exported(plain_run, ".onnx"), "-o", "f.nc", *options)
    assert (result.code, says in result.last, "exported" in result.last) == (code, True, True), result.err


def test_a_program_is_no_model_to_train_on_or_change(weather: Path, plain_run: Path, exported: Exported) -> None:
    program = exported(plain_run, ".onnx")
    for command in (["calibrate", program, weather], ["export", "-m", program, "-o", "m.pt2"]):
        result = pdr(*command)
        assert (result.code, "name the model that it was exported from" in result.last) == (2, True), result.err
    assert "fp32, for ONNX Runtime" in pdr("inspect", program).out


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_altered_program_is_refused(weather: Path, plain_run: Path, exported: Exported, suffix: str) -> None:
    content = bytearray(exported(plain_run, suffix).read_bytes())
    weights = modelfile.read(plain_run / "model.safetensors").weights
    stored = (content.find(w.numpy().tobytes()) for w in weights.values() if w.numel() > 8)
    content[next(place for place in stored if place >= 0)] ^= 1
    Path(f"altered{suffix}").write_bytes(content)
    result = pdr("predict", weather, "-m", f"altered{suffix}", "-o", "f.nc")
    found = "was altered" if suffix == ".onnx" else "Bad CRC-32"  # archives have sums of their own
    assert (result.code, found in result.last) == (65, True), result.err
    Path(f"cut{suffix}").write_bytes(content[:-9])
    assert pdr("verify", f"cut{suffix}").code == 65


def test_steps_that_a_program_would_forecast_otherwise_are_refused(plain_run: Path) -> None:
    header = read_header(plain_run / "model.safetensors")
    header.program = Program("", "", "fp32", shorter=False, longer=False)
    for steps in (3, 5):
        with pytest.raises(UsageError, match=f"{steps} steps: .* forecasts 4; .*, its model makes other frames"):
            header.horizon(steps)
    assert header.horizon(4) == 4


@pytest.mark.parametrize(
    ("output", "options", "says"),
    [
        ("m.onnx", ["--precision", "int8"], "--input DATA"),
        ("m.onnx", ["--precision", "int4", "--input", "."], "fp32 or fp16 or int8"),
        ("m.pt2", ["--precision", "fp16", "--input", "."], "is for .onnx"),
    ],
)
def test_a_precision_whose_cost_cannot_be_measured_is_refused(
    plain_run: Path, output: str, options: list[str], says: str
) -> None:
    result = pdr("export", "-m", plain_run, "-o", output, *options)
    assert (result.code, says in result.last, list(Path().iterdir())) == (2, True, []), result.err


@pytest.mark.slow
def test_rounded_weights_are_written_with_what_they_cost(weather: Path, plain_run: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = pdr("export", "-m", plain_run, "-o", "small.onnx", "--precision", "int8", "--input", weather)
    assert result.code == 0, result.err
    found = re.search(r"int8 ([\d.]+), fp32 ([\d.]+), persistence ([\d.]+); skill against persistence", result.out)
    assert found is not None, result.out
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.1)
    assert "largest difference 0.0e+00" not in result.out
    assert predicted(weather, Path("small.onnx")).attrs["pdr_device"] == "cpu/int8"


# In this file, since the first graph of a process costs as much as all others: torch's compiler is imported.
@pytest.mark.parametrize("output", ["model.onnx", pytest.param("model.pt2", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["local", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deform", "mlp", "conv"))]
)  # flatten: above
def test_every_adapter_leaves_as_a_graph(adapter_run: Callable[[str], Path], name: str, output: str) -> None:
    if output.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    result = pdr("export", "-m", adapter_run(name), "-o", output, "-q")
    assert (result.code, "verified in" in result.out) == (0, True), result.err


def test_a_wrong_artefact_is_refused_and_leaves_no_file(
    weather_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdr_cli.export import artefact

    monkeypatch.setattr(artefact, "TOLERANCE", -1.0)
    result = pdr("export", "-m", weather_run, "-o", "model.pt2")
    assert (result.code, "E_EXPORT_MISMATCH" in result.last) == (1, True)
    assert not (tmp_path / "model.pt2").exists()


def test_layers_are_drawn_and_weights_written(weather: Path, weather_run: Path, tmp_path: Path) -> None:
    assert pdr("export", "-m", weather_run, "--input", weather, "-o", "layers.png").code == 0
    assert (tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"
    assert pdr("export", "-m", weather_run, "-o", "weights.safetensors").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-o", "m.tflite"], 2, "expected one of .onnx"),
        (["-o", "g.nc"], 2, "--input FILE"),
        (["-o", "nowhere/m.onnx"], 73, "mkdir -p"),
    ],
)
def test_mistakes_are_one_line_with_their_code(weather_run: Path, arguments: list[str], code: int, says: str) -> None:
    result = pdr("export", "-m", weather_run, *arguments)
    assert (result.code, says in result.last) == (code, True)
