from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli import splat
from tests.cli import pdr
from tests.data.formats.test_cf import findings


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
    (out,) = session.run(None, {"observed": np.repeat(window, 5, axis=0)})
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


def layer_of(run: Path, frames: np.ndarray) -> np.ndarray:
    """The Gaussian layer after frames [T, C, H, W], in data units: [τ, C, H, W]."""
    model = pdr_cli.load(run).loaded
    layer = model.run(frames[None]).layer
    assert layer is not None
    return np.asarray(layer[0] * np.array(model.card.scaling.scale)[:, None, None])


def test_gaussians_redraw_the_layer_they_came_from(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    """In degrees and kelvin, to 1e-5 of the layer's largest value: centres are kept in double precision."""
    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made, xr.open_dataset(weather) as data:
        assert dict(made.sizes) == {"gaussian": 9, "time": 4, "lat": 13, "lon": 15}
        found = {name: made[name].attrs["units"] for name in ("centre_y", "centre_x", "sigma_1", "amplitude_t2m")}
        assert list(found.values()) == ["degrees_north", "degrees_east", "degrees", "K"]
        layer = layer_of(plain_run, data.t2m.values[-4:, None])
        drawn = splat.render_dataset(made).numpy()
    assert np.abs(drawn - layer).max() < 1e-5 * np.abs(layer).max()
    assert findings(tmp_path / "gaussians.nc") == ""


def test_what_the_file_says_of_a_gaussian_is_what_is_drawn(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    """exp(-q/2) in degrees, by the words of the attribute `rendering`, at every second place of a grid twice as fine."""
    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made:
        drawn = splat.render_dataset(made, size=(25, 29)).numpy()[:, 0]
        g = made.transpose("time", "gaussian", ...)
        east = made.lon.values[None, None, None, :] - g.centre_x.values[..., None, None]
        north = made.lat.values[None, None, :, None] - g.centre_y.values[..., None, None]
        cos, sin = (f(g.rotation.values)[..., None, None] for f in (np.cos, np.sin))
        along = (cos * east + sin * north) / g.sigma_1.values[..., None, None]
        across = (cos * north - sin * east) / g.sigma_2.values[..., None, None]
        values = g.amplitude_t2m.values[..., None, None] * np.exp(-(along**2 + across**2) / 2)
    assert np.abs(drawn[:, ::2, ::2] - values.sum(axis=1)).max() < 1e-5 * np.abs(drawn).max()


def test_gaussians_lie_at_the_same_places_however_the_input_is_arranged(
    weather: Path, plain_run: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(weather) as data:
        turned = data.isel(lat=slice(None, None, -1)).assign_coords(lon=data.lon - 360)
        turned["lon"].attrs = data.lon.attrs
        turned.to_netcdf("turned.nc")
    for name, source in (("a.nc", weather), ("b.nc", "turned.nc")):
        assert pdr("export", "-m", plain_run, "--input", source, "-o", name).code == 0
    with xr.open_dataset("a.nc") as one, xr.open_dataset("b.nc") as other:
        xr.testing.assert_equal(one, other)


def test_gaussians_of_a_grid_without_coordinates_are_in_cells(traffic: Path, traffic_run: Path, tmp_path: Path) -> None:
    """Both flows have amplitudes of their own."""
    assert pdr("export", "-m", traffic_run, "--input", traffic, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made:
        assert {made[n].attrs["units"] for n in ("centre_x", "centre_y", "sigma_1", "sigma_2")} == {"1"}
        assert {"amplitude_inflow", "amplitude_outflow"} < set(made.data_vars)
        assert splat.render_dataset(made).shape[1:] == (2, 8, 8)
    assert findings(tmp_path / "gaussians.nc") == ""


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
