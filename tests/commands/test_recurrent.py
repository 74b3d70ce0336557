"""Recurrent predictors through the command: trained with their targets, resumed exactly, forecast to any horizon."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray as xr

from pdr_cli.models.layout import channels_last
from pdr_cli.models.predictors.recurrent import predrnn
from pdr_cli.runs import modelfile
from pdr_cli.training.loop import Trainer
from tests.cli import pdr
from tests.conftest import tiny_settings


def steps_of(run: Path) -> list[dict]:  # type: ignore[type-arg]
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "step"]


@pytest.fixture(scope="module")
def trained(make_run: Callable[..., Path], weather: Path) -> Callable[[str], Path]:
    """The run of a predictor, trained when first asked for; the tests only read it."""
    return functools.cache(lambda name: make_run(weather, "--backbone", name))


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("predrnnv2", ["decoupling", "observed_loss"]),
        ("dmvfn", ["pyramid_loss"]),
        ("unet", []),
        ("met2net", ["latent_loss"]),
    ],
)
def test_trained_predicted_and_read_back(
    trained: Callable[[str], Path], weather: Path, tmp_path: Path, name: str, terms: list[str]
) -> None:
    run = trained(name)
    assert all(line[term] > 0 for line in steps_of(run) for term in terms)
    out = tmp_path / "forecast.nc"
    result = pdr("predict", weather, "-m", run, "--steps", "6", "-o", out)
    assert result.code == 0, result.err
    with xr.open_dataset(out) as forecast:
        assert forecast.sizes["time"] == 6, "trained for 4"


def test_what_a_predictor_adds_is_minimised(
    make_run: Callable[..., Path], weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for weight in (0.0, 100.0):
        monkeypatch.setattr(predrnn, "DECOUPLING_WEIGHT", weight)
        losses.append([line["loss"] for line in steps_of(make_run(weather, "--backbone", "predrnnv2"))])
    assert losses[0][0] == losses[1][0], "the loss that is logged is that of the forecast alone"
    assert losses[0][2] != losses[1][2]


def test_training_says_how_far_it_is(
    make_run: Callable[..., Path], weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    mask = predrnn.PredRNN.teacher_mask
    monkeypatch.setattr(predrnn.PredRNN, "teacher_mask", lambda self, b: told.append(b.progress) or mask(self, b))
    make_run(weather, "--backbone", "predrnn", "--steps", "4", "--budget", "1h")
    assert told == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4], abs=1e-3), "the clock adds next to nothing to the steps"


@pytest.mark.slow
def test_exported_as_one_graph_of_all_steps(make_run: Callable[..., Path], weather: Path) -> None:
    run = make_run(weather, "--backbone", "convlstm")
    result = pdr("export", "-m", run, "-o", "model.pt2", "-q")
    assert (result.code, "verified in torch.export" in result.out) == (0, True), result.err


@pytest.mark.parametrize(("name", "term"), [("predrnnv2", "decoupling"), ("wast", "frequency_loss")])
def test_a_frozen_predictor_is_not_taught(
    make_run: Callable[..., Path], trained: Callable[[str], Path], weather: Path, name: str, term: str
) -> None:
    start = trained(name)
    run = make_run(weather, "--backbone", name, "--init-from", str(start), "--freeze-backbone")
    assert all(term in line for line in steps_of(start))
    assert not any(term in line for line in steps_of(run))
    before, after = (modelfile.read(Path(one, "model.safetensors")).weights for one in (start, run))
    same = {key: before[key].equal(after[key]) for key in before}
    assert all(same[key] for key in same if key.startswith("predictor.")), "statistics of norms included"
    assert not all(same.values()), "adapter and fusion learn"


def test_weights_of_3d_convolutions_keep_their_layout() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.Conv3d(4, 4, 3))
    before = [p.detach().clone() for p in network.parameters()]
    channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[1].weight.is_contiguous()
    assert all(p.equal(q) for p, q in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["predrnnv2", pytest.param("dmvfn", marks=pytest.mark.slow)])
def test_an_interrupted_run_draws_the_same_again(weather: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: str, *more: str) -> int:
        base = ["train", "--preset", "demo", "--data", str(weather), "-o", folder, "-q", "--steps", "6"]
        return pdr(*base, *tiny_settings(), "--backbone", name, "--budget", "", *more).code

    assert train("whole") == 0
    plain_step = Trainer._step

    def interrupted_at_third(self: Trainer) -> None:
        plain_step(self)
        if self.position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", interrupted_at_third)
        assert train("cut") == 128 + signal.SIGTERM
    assert pdr("train", "--resume", "-o", "cut", "-q").code == 0
    whole, cut = (modelfile.read(Path(run, "model.safetensors")).weights for run in ("whole", "cut"))
    assert all(whole[key].equal(cut[key]) for key in whole)
    assert [line["loss"] for line in steps_of(Path("whole"))] == [line["loss"] for line in steps_of(Path("cut"))]
