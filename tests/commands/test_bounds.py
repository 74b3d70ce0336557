"""Bounds from the training to the forecast file: rain that is never negative, on every path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.data.formats import stored
from pdr_cli.inference import model as models
from pdr_cli.runs import modelfile
from tests.builders import field, traffic_file, weather_file
from tests.cli import pdr
from tests.runs.test_modelfile import rewrite_card

RAIN = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount", "long_name": "rain"}


def rain_file(path: Path, factor: float = 1, **attrs: Any) -> Path:
    """Rain in millimetres times `factor`, dry in half of all cells."""
    weather_file(path, values=np.clip(field(160) - 280, 0, None) * np.float32(factor), name="tp")
    with xr.open_dataset(path) as opened:
        dataset = opened.load()
    dataset.tp.attrs = RAIN | attrs
    dataset.to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def rain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rain_file(tmp_path_factory.mktemp("rain") / "rain.nc")


@pytest.fixture(scope="module")
def rain_run(make_run: Callable[..., Path], rain: Path) -> Path:
    return make_run(rain, "--set", "model.anchor=persistence")


@pytest.fixture(scope="module")
def unbounded(rain_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in a file from before bounds were kept."""

    def older(card: dict[str, Any]) -> dict[str, Any]:
        del card["bounds"], card["config"]["data"]["bounds"]
        return card

    copy = tmp_path_factory.mktemp("older") / "model.safetensors"
    copy.write_bytes((rain_run / "model.safetensors").read_bytes())
    rewrite_card(copy, older)
    return copy


def forecast(data: Path, model: Path, *options: str, name: str = "f.nc") -> xr.DataArray:
    result = pdr("predict", data, "-m", model, "-o", name, *options)
    assert result.code == 0, result.err
    with xr.open_dataset(name) as made:
        return made.tp.load()


def test_a_forecast_is_the_unbounded_one_within_its_bounds(rain: Path, rain_run: Path, unbounded: Path) -> None:
    free, bounded = forecast(rain, unbounded), forecast(rain, rain_run)
    assert free.min() < 0
    assert bounded.min() == 0
    assert np.allclose(bounded, free.clip(min=0), atol=1e-6)
    assert (bounded.attrs["valid_min"], "valid_max" in bounded.attrs, "valid_min" in free.attrs) == (0, False, False)


def test_bounds_are_in_the_header_and_shown(rain_run: Path, unbounded: Path) -> None:
    card = modelfile.read_header(rain_run / "model.safetensors").card
    assert card.bounds is not None
    assert (card.bounds.low, card.bounds.high) == ((0.0,), (None,))
    assert modelfile.read_header(unbounded).card.bounds is None
    shown = pdr("inspect", rain_run).out
    assert "bounds\n  tp           0.." in shown


def test_bounded_frames_are_fed_back_in_a_roll_out(rain: Path, rain_run: Path, unbounded: Path) -> None:
    free, bounded = (forecast(rain, model, "--steps", "12") for model in (unbounded, rain_run))
    assert bounded.min() == 0
    assert np.allclose(bounded[:4], free[:4].clip(min=0), atol=1e-6)
    assert not np.allclose(bounded[4:], free[4:].clip(min=0), atol=1e-6)


def test_the_bounds_hold_in_the_units_of_the_input_and_after_regridding(rain_run: Path, tmp_path: Path) -> None:
    metres = forecast(rain_file(tmp_path / "m.nc", 1e-3, units="m"), rain_run)
    assert (metres.attrs["units"], float(metres.min()), metres.attrs["valid_min"]) == ("m", 0, 0)
    with xr.open_dataset(rain_file(tmp_path / "fine.nc")) as opened:
        fine = opened.load()
    fine.interp(lat=np.linspace(60, 32.5, 20), lon=np.linspace(200, 232.5, 30)).to_netcdf(tmp_path / "fine.nc")
    assert forecast(tmp_path / "fine.nc", rain_run, "--regrid", "bilinear").min() == 0


def test_hindcasts_and_the_api_are_bounded(rain: Path, rain_run: Path) -> None:
    hindcast = forecast(rain, rain_run, "--every-init", name="h.nc")
    assert (hindcast.min(), hindcast.attrs["valid_min"]) == (0, 0)
    with xr.open_dataset(rain) as data:
        assert pdr_cli.load(rain_run).predict(data).tp.min() == 0


def test_verify_finds_a_value_below_the_bound(rain: Path, rain_run: Path) -> None:
    forecast(rain, rain_run)
    assert pdr("verify", "f.nc").code == 0
    with xr.open_dataset("f.nc") as opened:
        altered = opened.load()
    altered.tp[0, 0, 0] = -0.01  # far inside of the plausible range
    altered.attrs["pdr_data_sha256"] = stored.data_sha256([[altered.tp.values]])
    altered.to_netcdf("g.nc")
    result = pdr("verify", "g.nc")
    assert (result.code, "1 values of tp are not between 0 and" in result.last) == (65, True), result.err


def test_verify_finds_it_in_a_format_that_numbers_its_channels(rain: Path, rain_run: Path) -> None:
    assert pdr("predict", rain, "-m", rain_run, "-o", "f.npz").code == 0
    with np.load("f.npz") as arrays:
        altered = {name: arrays[name] for name in arrays.files}
    altered["data"][0, 0, 0, 0] = -0.01
    altered["pdr_data_sha256"] = np.asarray(stored.data_sha256([[altered["data"][:, 0]]]))
    np.savez("g.npz", **altered)
    result = pdr("verify", "g.npz")
    assert (result.code, "1 values of channel 0 are not between 0 and" in result.last) == (65, True), result.err


def test_an_exported_program_has_the_bounds(rain: Path, rain_run: Path, unbounded: Path) -> None:
    import torch

    model = models.load(rain_run / "model.safetensors", "cpu")
    with xr.open_dataset(rain) as data:
        window = data.tp.values[-4:][None, :, None]
    expected = model.run(window).fused
    assert expected.min() == 0
    result = pdr("export", "-m", rain_run, "-o", "model.pt2")
    assert (result.code, "verified in torch.export" in result.out) == (0, True), result.err
    made = torch.export.load("model.pt2").module()(torch.from_numpy(window))[0].detach().numpy()
    assert (made.min(), np.abs(made - expected).max() < 1e-4) == (0, True)


@pytest.mark.slow
def test_an_onnx_program_has_the_bounds(rain: Path, rain_run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    result = pdr("export", "-m", rain_run, "-o", "model.onnx", "-q")
    assert (result.code, "verified in ONNX Runtime" in result.out) == (0, True), result.err
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    with xr.open_dataset(rain) as data:
        (made,) = session.run(["forecast"], {"observed": data.tp.values[-4:][None, :, None]})
    assert made.min() == 0


def test_an_option_sets_the_bounds_and_training_data_beyond_them_are_refused(rain: Path) -> None:
    arguments = ("train", "--preset", "demo", "--data", rain, "-o", "run", "--steps", "1")
    refused = pdr(*arguments, "--set", "data.bounds=tp=0..1")
    assert (refused.code, "training values of tp are not within its bound ..1" in refused.last) == (65, True)
    with xr.open_dataset(rain) as data:
        training = data.tp.values[: int(0.75 * 160)]
    count = int(refused.last.split("rain.nc: ")[1].split()[0])
    assert 0 < count <= (training > 1).sum()
    unknown = pdr(*arguments, "--set", "data.bounds=to=0..")
    assert (unknown.code, "Did you mean 'tp'?" in unknown.last) == (78, True), unknown.last
    wrong = pdr(*arguments, "--set", "data.bounds=tp=1..0")
    assert (wrong.code, "data.bounds" in wrong.last) == (78, True), wrong.last


def test_a_resumed_run_and_one_from_other_weights_have_the_bounds_of_their_data(
    rain: Path, rain_run: Path, unbounded: Path, make_run: Callable[..., Path]
) -> None:
    warm = make_run(rain, "--init-from", str(unbounded), "--set", "model.anchor=persistence")
    assert modelfile.read_header(warm / "model.safetensors").card.bounds is not None
    without = make_run(
        rain, "--init-from", str(rain_run), "--set", "data.bounds=none", "--set", "model.anchor=persistence"
    )
    assert modelfile.read_header(without / "model.safetensors").card.bounds is None
    continued = pdr("train", "--resume", "-o", warm, "--steps", "6", "-q")
    assert continued.code == 0, continued.err
    assert modelfile.read_header(warm / "model.safetensors").card.bounds is not None
    assert forecast(rain, warm).min() == 0


def test_counts_of_any_format_are_not_negative(make_run: Callable[..., Path], tmp_path: Path) -> None:
    data = traffic_file(tmp_path / "city.h5")
    run = make_run(data, "--set", "train.lr=0.1")
    assert pdr("predict", data, "-m", run, "-o", "f.h5").code == 0
    verified = pdr("verify", "f.h5")
    assert verified.code == 0, verified.err
    assert '"inflow": [0.0,' in stored.provenance(Path("f.h5"))["pdr_plausible"]


def test_data_without_bounds_are_forecast_as_before(weather_run: Path, weather: Path) -> None:
    assert modelfile.read_header(weather_run / "model.safetensors").card.bounds is None
    assert pdr("predict", weather, "-m", weather_run, "-o", "f.nc").code == 0
    with xr.open_dataset("f.nc") as made:
        assert not {"valid_min", "valid_max"} & set(made.t2m.attrs)
