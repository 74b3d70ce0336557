"""A batch that does not fit into memory is halved once, and the results are those of the whole batch."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pdr_cli.models.pdr import PDR
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import memory
from pdr_cli.training import state
from pdr_cli.training.loop import Trainer
from tests.builders import field, weather_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings

MORE_THAN_THERE_IS = 2**52  # numbers: 16 PB, beyond what an address can name


def holds(monkeypatch: pytest.MonkeyPatch, windows: int) -> None:
    """Let memory end for more windows than this, where a network has drawn its random numbers already."""
    usual = PDR._layer

    def layer(self: PDR, coarse: torch.Tensor, *others: Any) -> Any:
        if len(coarse) > windows:
            torch.empty(MORE_THAN_THERE_IS)
        return usual(self, coarse, *others)

    monkeypatch.setattr(PDR, "_layer", layer)


def train(data: Path, out: str, *more: str) -> Result:
    arguments = ["--preset", "demo", "--data", data, "-o", out, "--steps", "1", *tiny_settings(*more)]
    return pdr("train", *arguments)


def saved(out: str, kind: str) -> dict[str, torch.Tensor]:
    tensors = state.read(RunFolder(Path(out)).state)[1]
    return {name: value for name, value in tensors.items() if kind in name}


@pytest.fixture
def gappy(tmp_path: Path) -> Path:
    """Values are missing in every third day, so that some windows of a batch weigh less than others."""
    values = field(160, 13, 15)
    missing = np.random.default_rng(0).random(values.shape) < 0.3 * (np.arange(160) // 4 % 3 == 0)[:, None, None]
    return weather_file(tmp_path / "gappy.nc", values=np.where(missing, np.float32(np.nan), values))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no more"), MemoryError(), RuntimeError("CUDA out of memory.")]
)
def test_a_shortage_of_memory_is_known_as_such(error: Exception) -> None:
    assert memory.is_shortage(error)


def test_another_failure_is_none() -> None:
    assert not memory.is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_halved_hindcasts_are_the_same(weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["predict", weather, "--every-init", "-m", weather_run]
    assert pdr(*arguments, "-o", "whole.nc").code == 0
    holds(monkeypatch, 8)
    result = pdr(*arguments, "-o", "halved.nc")
    assert (result.code, result.err.count("16 windows at once do not fit into memory")) == (0, 1), result.err
    assert "the same but for rounding. --batch 8 avoids" in result.err
    with xr.open_dataset("whole.nc") as whole, xr.open_dataset("halved.nc") as halved:
        np.testing.assert_allclose(halved.t2m, whole.t2m, rtol=1e-6)  # float32
    assert "do not fit" not in pdr(*arguments, "-o", "again.nc", "--batch", "8").err


def test_halved_scores_are_the_same(weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*more: str) -> tuple[list[float], str]:
        result = pdr("evaluate", weather, "-m", weather_run, "--split", "all", "--json", *more)
        assert result.code == 0, result.err
        return json.loads(result.out)["scores"]["run"]["rmse"]["lead"], result.err

    whole, _ = scores()
    holds(monkeypatch, 8)
    halved, said = scores()
    assert halved == pytest.approx(whole, rel=1e-6)
    assert "the same but for rounding. --batch 8 avoids" in said
    assert "do not fit" not in scores("--batch", "8")[1]


def test_batch_is_for_several_windows(weather: Path, weather_run: Path) -> None:
    assert pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--batch", "2").code == 2


def test_one_window_cannot_be_halved(weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holds(monkeypatch, 0)
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run)
    assert (result.code, "E_MEMORY" in result.last, "one window alone" in result.last) == (69, True, True)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("loss", ["l1ssim", "l2reg"])
@pytest.mark.parametrize("data", ["weather", "gappy"])
def test_a_halved_step_has_the_gradients_of_the_whole(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, data: str, loss: str
) -> None:
    settings = [
        f"train.loss={loss}",
        "train.latitude_weights=true",
        "data.fill_missing=persist",
        "model.backbone=simvp",
    ]
    path = request.getfixturevalue(data)
    assert train(path, "whole", *settings).code == 0
    holds(monkeypatch, 4)
    result = train(path, "halved", *settings)
    assert (result.code, "8 windows at once do not fit into memory" in result.err) == (0, True), result.err
    assert "the same but for rounding. --set train.batch=4 avoids" in result.err
    # After one step, AdamW's mean of gradients is the gradient but for a factor.
    whole, halved = (saved(out, "exp_avg") for out in ("whole", "halved"))
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    assert largest > 0
    for name, gradient in whole.items():
        torch.testing.assert_close(halved[name], gradient, rtol=1e-4, atol=1e-5 * largest)  # sums in another order
    first, second = (json.loads(Path(out, "metrics.jsonl").read_text().splitlines()[0]) for out in ("whole", "halved"))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


@pytest.mark.parametrize("network", ["predrnn", "tau"])
def test_a_failed_try_leaves_no_trace(weather: Path, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    # Scheduled sampling of the one and stochastic depth of the other draw random numbers.
    settings = [f"model.backbone={network}", "model.drop_path=0.5"]
    with monkeypatch.context() as small:
        holds(small, 4)
        assert train(weather, "failed", *settings, "train.steps=2").code == 0

    def by_halves(self: memory.Batches, work: Callable[[int], object], size: int, undo: object = None) -> object:
        return work(4)

    monkeypatch.setattr(memory.Batches, "attempt", by_halves)
    assert train(weather, "halved", *settings, "train.steps=2").code == 0
    failed, halved = saved("failed", ""), saved("halved", "")
    assert all(halved[name].equal(failed[name]) for name in halved)


def test_what_does_not_fit_after_a_halving_ends_the_training(
    weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(weather_run, "run")
    before = saved("run", "")
    holds(monkeypatch, 2)
    result = pdr("train", "--resume", "-o", "run", "--steps", "6")
    assert (result.code, "E_MEMORY" in result.last) == (69, True), result.err
    assert "--set train.batch=2 or fewer" in result.last
    after = saved("run", "")
    assert all(before[name].equal(after[name]) for name in before)


def test_batch_norms_count_each_half_once(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holds(monkeypatch, 4)
    result = train(weather, "run", "model.backbone=tau")
    assert (result.code, "batch norms take their means over these" in result.err) == (0, True), result.err
    # Not the try that failed, nor the second pass on the way back.
    assert {int(n) for n in saved("run", "num_batches_tracked").values()} == {2}


def test_a_resumed_run_keeps_the_halving(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The batch norms of tau take their means over the halves, and memory is no longer short after the interruption.
    step = Trainer._step

    def interrupted(self: Trainer) -> None:
        step(self)
        if self.position.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as small:
        holds(small, 4)
        assert train(weather, "whole", "model.backbone=tau", "train.steps=4").code == 0
        small.setattr(Trainer, "_step", interrupted)
        assert train(weather, "cut", "model.backbone=tau", "train.steps=4").code == 128 + signal.SIGTERM
    result = pdr("train", "--resume", "-o", "cut")
    assert (result.code, "do not fit" in result.err) == (0, False), result.err
    whole, cut = saved("whole", ""), saved("cut", "")
    assert all(whole[name].equal(cut[name]) for name in whole)


def test_a_shortage_where_nothing_can_be_halved_is_no_bug(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdr_cli.inference.intake.Intake.observe", lambda *_, **__: np.empty(MORE_THAN_THERE_IS))
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run)
    assert (result.code, "Unable to allocate" in result.last, "E_MEMORY" in result.last) == (69, True, True)
