"""Baselines fitted beside the network: deterministic, small, kept once, and without influence on the network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pdr_cli.inference import model as models
from pdr_cli.models.interfaces import Anchor
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelFile
from pdr_cli.training.anchors import baselines
from tests.cli import pdr
from tests.conftest import BASELINES, tiny_settings

PERSISTENCE = (*BASELINES, "--set", "model.anchor=persistence")


@pytest.fixture(scope="module")
def beside_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run on `weather` whose own anchor is not fitted."""
    return make_run(weather, *PERSISTENCE)


def contents(run: Path) -> ModelFile:
    return modelfile.read(run / "model.safetensors")


def test_they_do_not_change_the_network(make_run: Callable[..., Path], weather: Path, beside_run: Path) -> None:
    without = contents(make_run(weather, *PERSISTENCE, "--set", "train.baselines=false"))
    beside = contents(beside_run)
    assert (set(without.baselines), set(beside.baselines)) == (set(), {"anomaly", "ridge"})
    assert all(torch.equal(beside.weights[name], value) for name, value in without.weights.items())


def test_the_networks_own_anchor_is_kept_once_with_the_same_numbers(
    make_run: Callable[..., Path], weather: Path, beside_run: Path
) -> None:
    anchored, beside = contents(make_run(weather, *BASELINES, "--set", "model.anchor=ridge")), contents(beside_run)
    assert set(anchored.baselines) == {"anomaly", "ridge"}
    for name, value in beside.baselines["ridge"].items():
        assert torch.equal(anchored.weights[f"anchor.{name}"], value)
        assert anchored.baselines["ridge"][name] is anchored.weights[f"anchor.{name}"]


def test_a_resumed_run_keeps_the_same_baselines(weather: Path, tmp_path: Path) -> None:
    settings = tiny_settings("train.baselines=true", "train.val_every=1", "model.anchor=persistence")
    start = ("train", "-p", "demo", "--data", weather, "-q", *settings)
    assert pdr(*start, "-o", "whole", "--steps", 4).code == 0
    assert pdr(*start, "-o", "parts", "--steps", 2).code == 0
    assert pdr("train", "--resume", "-o", "parts", "--steps", 4, "-q").code == 0
    whole, parts = contents(tmp_path / "whole").baselines, contents(tmp_path / "parts").baselines
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[n][k], value) for n, row in parts.items() for k, value in row.items())


def test_a_ridge_reads_earlier_cycles_and_the_network_does_not(make_run: Callable[..., Path], traffic: Path) -> None:
    model = models.load(make_run(traffic, *PERSISTENCE) / "model.safetensors", "cpu")
    assert model.card.cycles == (24,)  # nine days of training: three days, but no three weeks
    assert model.card.frames.lags == 0
    assert model.contexts.cycles == ()
    assert model.baselines["ridge"].contexts.cycles == (24,)
    assert model.baselines["ridge"].card.frames.lags == 1
    assert model.baselines["anomaly"].contexts.cycles == ()


def test_they_are_small(weather_run: Path, traffic_run: Path, video_run: Path) -> None:
    for run in (weather_run, traffic_run, video_run):
        kept = contents(run).baselines.values()
        assert sum(v.numel() * v.element_size() for row in kept for v in row.values()) < 5e6


@pytest.mark.parametrize("fault", ["nan", "singular"])
def test_what_cannot_be_fitted_is_left_out_with_a_warning(
    weather: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_anchor(anchor: Anchor, windows: object, word: str, name: str) -> None:
        if fault == "singular":
            raise torch.linalg.LinAlgError("singular")
        next(anchor.buffers()).fill_(torch.nan)

    monkeypatch.setattr(baselines, "fit_anchor", fit_anchor)
    result = pdr("train", "-p", "demo", "--data", weather, "-o", "run", "--steps", 1, *tiny_settings(), *PERSISTENCE)
    assert result.code == 0
    assert "do not determine the baseline ridge" in result.err
    assert contents(tmp_path / "run").baselines == {}
