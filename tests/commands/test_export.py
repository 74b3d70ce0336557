from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli import splat
from tests.cli import pdr


@pytest.fixture(scope="module")
def plain_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run whose network reads frames alone."""
    return make_run(weather, "--set", "model.anchor=persistence")


def test_onnx_is_verified_and_takes_any_batch_in_data_units(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    result = pdr("export", "-m", plain_run, "-o", "model.onnx", "-q")
    assert result.code == 0, result.err
    assert "verified in ONNX Runtime" in result.out
    assert result.err == ""
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    with xr.open_dataset(weather) as data:
        window = data.t2m.values[-4:][None, :, None]
        forecast = pdr_cli.load(plain_run).predict(data).t2m.values[:, None]
    (out,) = session.run(["forecast"], {"observed": np.repeat(window, 5, axis=0)})
    assert np.abs(out[4] - forecast).max() < 1e-3  # kelvin, of about 280


def test_pt2_is_verified(weather_run: Path, tmp_path: Path) -> None:
    result = pdr("export", "-m", weather_run, "-o", "model.pt2")
    assert (result.code, "verified in torch.export" in result.out) == (0, True), result.err


# In this file, since the first graph of a process costs as much as all others: torch's compiler is imported.
@pytest.mark.parametrize("output", ["model.onnx", "model.pt2"])
@pytest.mark.parametrize("name", ["local", "deform", "mlp", "conv"])  # flatten: above
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


def test_gaussians_redraw_the_layer_they_came_from(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    import torch

    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made, xr.open_dataset(weather) as data:
        assert dict(made.sizes) == {"time": 4, "gaussian": 9, "channel": 1}
        rows, columns = made.attrs["rows"], made.attrs["columns"]
        centre = np.stack([2 * made.x / (columns - 1) - 1, 2 * made.y / (rows - 1) - 1], axis=-1)
        unit = (made.attrs["kernel_size"] - 1) / 10
        scale = np.stack([made.sigma_1 / unit, made.sigma_2 / unit], axis=-1)
        values = (centre, scale, made.rotation.values, made.amplitude.values)
        tensors = [torch.from_numpy(np.asarray(v, np.float32)) for v in values]
        drawn = splat.render(*tensors, size=(int(rows), int(columns)), kernel_size=int(made.attrs["kernel_size"]))
        layer = pdr_cli.load(plain_run).loaded.run(data.t2m.values[-4:][None, :, None]).layer
    assert np.allclose(drawn.numpy(), layer[0], atol=1e-5)


def test_gaussians_that_read_back_differently_are_refused(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = xr.Dataset.to_netcdf

    def wrong(data: xr.Dataset, *arguments: object, **options: object) -> None:
        right(data.assign(rotation=data.rotation + 1), *arguments, **options)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", wrong)
    result = pdr("export", "-m", weather_run, "--input", weather, "-o", "gaussians.nc")
    assert (result.code, "E_IO" in result.last, "rotation reads back differently" in result.last) == (74, True, True)
    assert list(Path().iterdir()) == []


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
