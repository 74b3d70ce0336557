"""A training that breaks off can be gone on with, and a model that is damaged is never used unasked."""

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pdr_cli.data.formats import stored
from pdr_cli.inference import model as inference
from pdr_cli.models.interfaces import target_of
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import hashes
from pdr_cli.training import state
from pdr_cli.training.batches import WeightedBatch
from pdr_cli.training.loop import Trainer
from tests.cli import pdr
from tests.conftest import tiny_settings
from tests.reliability.processes import LOCKS, another_process


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    path.write_bytes(content)


@pytest.fixture
def run(weather_run: Path) -> RunFolder:
    """A copy of the trained run, trained for three more steps, so that there is a state before the last."""
    shutil.copytree(weather_run, "run")
    assert pdr("train", "--resume", "-o", "run", "--steps", "6", "-q").code == 0
    return RunFolder(Path("run"))


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.read(run.state)[1].items() if k.startswith("network.")}


def test_the_state_before_the_last_is_kept(run: RunFolder) -> None:
    assert [state.read(p)[0].step for p in (run.previous_state, run.state)] == [3, 6]


def test_a_damaged_state_is_replaced_by_the_one_before_and_training_ends_the_same(run: RunFolder) -> None:
    whole = {k: v.clone() for k, v in weights_of(run).items()}
    damage(run.state)
    result = pdr("train", "--resume", "-o", "run", "--steps", "6")
    assert (result.code, "continuing from the previous state, of step 3" in result.err) == (0, True), result.err
    assert "SHA-256" in result.err
    again = weights_of(run)
    assert all(whole[k].equal(again[k]) for k in whole)


def test_the_state_before_can_be_asked_for(run: RunFolder) -> None:
    result = pdr("train", "--resume", "--state", "last-1", "-o", "run", "--steps", "6")
    assert (result.code, "resume  run at step 3" in result.err) == (0, True), result.err
    assert pdr("train", "--resume", "--state", "last-2", "-o", "run").code == 2


def test_two_damaged_states_are_refused(run: RunFolder) -> None:
    damage(run.state)
    damage(run.previous_state)
    result = pdr("train", "--resume", "-o", "run", "--steps", "9", "-q")
    assert (result.code, "E_CHECKPOINT" in result.last) == (65, True)


def test_a_state_of_before_hashes_is_taken_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"random.cpu": torch.get_rng_state()}, tmp_path / "old.safetensors", {"position": '{"step": 7}'})
    assert state.read(tmp_path / "old.safetensors")[0].step == 7
    assert list(state.MIGRATIONS) == list(range(1, state.FORMAT_VERSION))


def test_a_state_of_a_newer_pdr_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    header = {"position": '{"step": 7}', "format_version": "99"}
    save_file({"random.cpu": torch.get_rng_state()}, tmp_path / "new.safetensors", header)
    with pytest.raises(Exception, match="format 99, this pdr reads up to 4; upgrade"):
        state.read(tmp_path / "new.safetensors")


def test_a_damaged_model_is_replaced_by_the_one_before_only_if_asked(run: RunFolder, weather: Path) -> None:
    run.previous_model.write_bytes(run.model.read_bytes())
    damage(run.model)
    arguments = ["predict", weather, "-o", "f.nc", "-m", "run"]
    result = pdr(*arguments)
    assert (result.code, "--fallback last-1 takes the model before it" in result.last) == (65, True)
    result = pdr(*arguments, "--fallback", "last-1")
    assert (result.code, "falling back to the model before it" in result.err) == (0, True)
    assert "model-1.safetensors" in result.out
    run.previous_model.unlink()
    assert pdr(*arguments, "--fallback", "last-1").code == 65
    assert pdr(*arguments, "--fallback", "last-2").code == 2


def test_a_forecast_names_the_model_it_was_made_with_though_training_replaces_it(
    run: RunFolder, weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, compute = hashes.sha256(run.model), inference.Model.run

    def replaced(model: inference.Model, *arguments: Any) -> inference.Layers:
        run.model.write_bytes(run.model.read_bytes() + b" ")
        return compute(model, *arguments)

    monkeypatch.setattr(inference.Model, "run", replaced)
    assert pdr("predict", weather, "-o", "f.nc", "-m", "run").code == 0
    assert hashes.sha256(run.model) != before
    assert stored.provenance(Path("f.nc"))["pdr_checkpoint_sha256"] == before


def test_the_model_before_the_best_is_kept(make_run: Callable[..., Path], weather: Path) -> None:
    # At the usual rate, the validation of every other step is better than the one before.
    folder = RunFolder(make_run(weather, "--steps", "40", "--set", "train.batch=64"))
    steps = [modelfile.read_header(p).card.training["best_step"] for p in (folder.previous_model, folder.model)]
    assert steps[0] < steps[1]


def test_two_trainings_in_one_folder_are_one_too_many(run: RunFolder) -> None:
    before = run.state.read_bytes()
    with another_process(LOCKS, "run") as other:
        result = pdr("train", "--resume", "-o", "run", "--steps", "9", "-q")
    assert (result.code, f"process {other.pid}" in result.last) == (75, True), result.last
    assert run.state.read_bytes() == before


def test_a_loss_that_is_no_number_names_its_batch_and_keeps_the_last_good(
    run: RunFolder, weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in (run.model, run.state)}
    usual = Trainer._batch

    def poisoned(self: Trainer) -> WeightedBatch:
        batch = usual(self)
        if self.position.step != 7:
            return batch
        return batch._replace(inputs=batch.inputs._replace(target=target_of(batch.inputs) * float("nan")))

    monkeypatch.setattr(Trainer, "_batch", poisoned)
    result = pdr("train", "--resume", "-o", "run", "--steps", "9", "-q")
    assert (result.code, "E_NON_FINITE_LOSS" in result.last) == (65, True)
    assert "nan at step 8, batch " in result.last
    assert "(windows from air.nc 2020-" in result.last
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_lets_the_step_end_and_saves_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    usual = Trainer._batch

    def disturbed(self: Trainer) -> WeightedBatch:
        if self.position.step == 7:
            os.kill(os.getpid(), number)
        return usual(self)

    monkeypatch.setattr(Trainer, "_batch", disturbed)
    result = pdr("train", "--resume", "-o", "run", "--steps", "12", "-q")
    assert (result.code, f"{number.name} at step 8; state saved" in result.last) == (128 + number, True), result.last
    assert state.read(run.state)[0].step == 8


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_what_one_process_trains_is_refused_on_several_ranks_with_one_line_of_the_first(
    weather: Path, monkeypatch: pytest.MonkeyPatch, rank: str, lines: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it
    monkeypatch.setenv("RANK", rank)
    for preset, *more in (("demo", "--ablation", "loss"), ("scenes-small",)):
        result = pdr("train", "--preset", preset, "--data", weather, "-o", "run", *more)
        assert (result.code, len(result.err.splitlines())) == (2, lines), result.err
        assert not lines or "start it without torchrun" in result.last
    assert not Path("run").exists()


def test_training_starts_no_process_that_could_die(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Data are read in the process itself: there are no workers, and nothing in /dev/shm.
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    for module, name in ((os, "fork"), (subprocess, "Popen"), (multiprocessing.Process, "start")):
        monkeypatch.setattr(module, name, fail)
    arguments = ["--preset", "demo", "--data", weather, "-o", "run", "--steps", "1", "-q"]
    result = pdr("train", *arguments, *tiny_settings())
    assert result.code == 0, result.err
