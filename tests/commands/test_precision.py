"""`--precision bf16` of `predict` and `evaluate`: what it changes, and what says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdr_cli.inference import model as inference
from tests.cli import pdr


def forecast(out: str, data: Path, run: Path, *arguments: str) -> xr.Dataset:
    """The forecast that pdr writes."""
    made = pdr("predict", data, "-o", out, "-m", run, *arguments)
    assert made.code == 0, made.err
    with xr.open_dataset(out) as opened:
        return opened.load()


def test_a_forecast_in_bf16_is_near_that_in_fp32_and_says_so(weather: Path, weather_run: Path) -> None:
    whole = forecast("whole.nc", weather, weather_run)
    rounded = forecast("rounded.nc", weather, weather_run, "--precision", "bf16")
    assert (whole.attrs["pdr_device"], rounded.attrs["pdr_device"]) == ("cpu/fp32", "cpu/bf16")
    apart, spread = np.abs(rounded.t2m.values - whole.t2m.values).max(), float(whole.t2m.std())
    assert 0 < apart < 2**-5 * spread  # a few roundings by 2^-8 of values near 1


def test_requests_that_differ_in_precision_do_not_answer_each_other(weather: Path, weather_run: Path) -> None:
    in_bf16 = ("predict", weather, "-o", "f.nc", "-m", weather_run, "--skip-existing", "--precision", "bf16")
    forecast("f.nc", weather, weather_run)
    assert "up to date" not in pdr(*in_bf16).out
    assert "up to date" in pdr(*in_bf16).out


def test_forecasts_of_a_hindcast_in_another_precision_are_not_kept(weather_run: Path) -> None:
    models = (inference.load(weather_run / "model.safetensors", "cpu", precision=name) for name in ("fp32", "bf16"))
    whole, rounded = (model.numerics() for model in models)
    assert {key for key in whole if whole[key] != rounded[key]} == {"--precision"}


def test_an_evaluation_names_the_precision(weather: Path, weather_run: Path) -> None:
    found = pdr("evaluate", weather, "-m", weather_run, "--precision", "bf16", "--json")
    assert found.code == 0, found.err
    assert [model["precision"] for model in json.loads(found.out)["card"]["models"].values()] == ["bf16"]


def test_a_baseline_computes_in_fp32(weather_run: Path) -> None:
    model = inference.load(weather_run / "model.safetensors", "cpu", precision="bf16")
    assert {baseline.precision for baseline in model.baselines.values()} == {"fp32"}


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_another_precision_is_refused(weather: Path, weather_run: Path, command: str) -> None:
    made = pdr(
        command, weather, "-o", "x.nc" if command == "predict" else "x.json", "-m", weather_run, "--precision", "int8"
    )
    assert made.code == 2
    assert "--precision int8; expected fp32 or bf16" in made.err


def test_bf16_is_refused_where_no_network_computes(
    weather: Path, weather_run: Path, make_run: Callable[..., Path]
) -> None:
    alone = make_run(weather, "model.backbone=none", "model.fusion=none", "model.anchor=persistence")
    made = pdr("predict", weather, "-o", "x.nc", "-m", alone, "--precision", "bf16")
    assert (made.code, "has no network" in made.err) == (2, True)
    forecast("theirs.nc", weather, weather_run)
    scored = pdr("evaluate", weather, "-m", "theirs.nc", "--precision", "bf16")
    assert (scored.code, "the forecasters are files" in scored.err) == (2, True)


def test_networks_are_laid_out_as_in_training(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    """From 32 x 32 cells on, weights are channels-last."""
    from tests.builders import weather_file

    data = weather_file(tmp_path / "large.nc", size=(32, 33))
    model = inference.load(make_run(data) / "model.safetensors", "cpu")
    weights = [p for p in model.network.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
