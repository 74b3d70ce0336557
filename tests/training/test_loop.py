"""The loop of a run: averages of the weights, its ends, and what a resumed run keeps."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from pdr_cli import config
from pdr_cli.drawing import pictures
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.training import run as training
from pdr_cli.training import state, validation
from pdr_cli.training.averages import Average
from pdr_cli.training.batches import WeightedBatch
from pdr_cli.training.length import GRACE, Clock, Length
from pdr_cli.training.lessons import ForecastLesson
from pdr_cli.training.loop import Trainer
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.state import Position
from pdr_cli.training.validation import Scores, Validation
from tests.builders import weather_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings


@pytest.fixture(autouse=True)
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """Draw no curves, which takes half of the time of a training; the function that draws them."""
    whole = pictures.curves
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)
    return whole


def train(data: Path, out: str, *settings: str, more: Sequence[str] = ("--steps", "20")) -> Result:
    arguments = ["--preset", "demo", "--data", data, "-o", out, *more]
    return pdr("train", *arguments, *tiny_settings(*settings))


def lines_of(out: str, event: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def without_times(out: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "cpu_seconds")} for line in lines]


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Send SIGTERM in the step after `at`, once."""
    usual, sent = Trainer._batch, []

    def batch(self: Trainer) -> object:
        if self.position.step == at and not sent:
            sent.append(at)
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(self)

    monkeypatch.setattr(Trainer, "_batch", batch)


def test_an_average_follows_the_weights_and_leaves_frozen_ones_alone() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    network[1].requires_grad_(False)
    for layer in network:
        nn.init.zeros_(layer.weight)
    average = Average(network, 0.5)
    for step in (1, 2):
        nn.init.ones_(network[0].weight)
        average.update(step)
    # Decays of (1 + 1) / (10 + 1) and (1 + 2) / (10 + 2), both below 0.5.
    expected = 1 - 2 / 11 * 3 / 12
    assert average.weights[0].item() == pytest.approx(expected)
    nn.init.ones_(network[1].weight)
    with average.applied():
        assert [layer.weight.item() for layer in network] == [pytest.approx(expected), 1]
    assert [layer.weight.item() for layer in network] == [1, 1]


def test_the_decay_is_at_most_that_of_the_configuration() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.5)
    nn.init.ones_(network.weight)
    average.update(1000)
    assert average.weights[0].item() == 0.5


def test_the_model_holds_the_averages_and_the_state_both(weather: Path) -> None:
    assert train(weather, "plain").code == train(weather, "averaged", "train.ema=0.99").code == 0
    plain, averaged = (modelfile.read(Path(out, "model.safetensors")).weights for out in ("plain", "averaged"))
    states = [state.read(RunFolder(Path(out)).state)[1] for out in ("plain", "averaged")]
    trained = [name for name in states[0] if name.startswith("network.")]
    assert all(states[0][name].equal(states[1][name]) for name in trained), "averages do not change the training"
    averages = {k.removeprefix("average."): v for k, v in states[1].items() if k.startswith("average.")}
    assert averages
    assert all(averaged[name].equal(average) for name, average in averages.items())
    assert not any(averages[name].equal(plain[name]) for name in averages if plain[name].ndim > 1)
    losses = [lines_of(out, "validation")[-1]["loss"] for out in ("plain", "averaged")]
    assert losses[0] != losses[1], "the average is validated"


# The larger grid trains in another memory layout; the ridge trains on anchors of each block of time.
@pytest.mark.parametrize(("size", "anchor"), [((13, 15), "ridge"), ((32, 33), "anomaly")])
def test_an_interrupted_run_with_all_of_it_resumes_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], anchor: str
) -> None:
    data = weather_file(tmp_path / "a.nc", size=size)
    settings = ["train.ema=0.9", "train.val_every=3", "train.patience=4", "train.rollout=2", "model.drop_path=0.2"]
    settings += [f"model.anchor={anchor}", "train.fallback=true"]
    assert_resumes(data, monkeypatch, settings, 20)


def test_members_draw_on_where_a_run_was_interrupted(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["train.members=3", "train.loss=crps", "model.noise=4", "train.val_every=3"]
    assert_resumes(weather, monkeypatch, settings, 6)
    steps = lines_of("whole", "step")
    assert all(line["spread"] > 0 for line in steps)


def assert_resumes(data: Path, monkeypatch: pytest.MonkeyPatch, settings: Sequence[str], steps: int) -> None:
    """A run that is interrupted and resumed ends as one that is not."""
    more = ("--steps", str(steps))
    assert train(data, "whole", *settings, more=more).code == 0
    interrupt(monkeypatch, steps // 2 - 2)
    assert train(data, "cut", *settings, more=more).code == 143
    result = pdr("train", "--resume", "-o", "cut", "-q")
    assert result.code == 0, result.err
    whole, cut = (state.read(RunFolder(Path(out)).state)[1] for out in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(whole[name].equal(cut[name]) for name in whole)
    assert without_times("whole") == without_times("cut")


def test_members_are_validated_by_the_fair_crps_of_eight(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights still, the scores are those of the members that the model draws."""
    seen: list[int] = []
    usual = validation.fair_crps

    def fair_crps(members: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        seen.append(len(members))
        return usual(members, target, weight)

    monkeypatch.setattr(validation, "fair_crps", fair_crps)
    settings = ("model.backbone=unet", "train.members=2", "train.loss=crps", "model.noise=4", "train.lr=1e-12")
    settings += ("train.val_every=1",)
    assert train(weather, "run", *settings, more=("--steps", "2")).code == 0
    assert set(seen) == {8, 1}, "members of the network and the anchor alone"
    first, second = (line["loss"] for line in lines_of("run", "validation"))
    assert first == pytest.approx(second, rel=1e-6), "each validation draws the same members"


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        (["train.members=2"], 78, "scores single forecasts; take --loss crps"),
        (["model.noise=4"], 78, "train.members is 1; take train.members=2 or more"),
        (["train.members=2", "train.loss=crps"], 78, "add noise with --set model.noise=32"),
        (["train.members=2", "train.loss=crps", "model.noise=4", "model.backbone=convlstm"], 78, "has no norms"),
    ],
)
def test_members_that_would_be_one_forecast_are_refused(
    weather: Path, settings: list[str], code: int, says: str
) -> None:
    result = train(weather, "run", *settings, more=("--steps", "1"))
    assert (result.code, says in result.err) == (code, True), result.err


def test_a_state_without_averages_begins_them_with_its_weights(weather: Path) -> None:
    assert train(weather, "run", more=("--steps", "2")).code == 0
    before = state.read(RunFolder(Path("run")).state)[1]
    more = ("--steps", "3", "--resume")
    assert train(weather, "run", "train.ema=0.5", more=more).code == 0
    after = state.read(RunFolder(Path("run")).state)[1]
    for name in [name for name in after if name.startswith("average.")]:
        trained = name.replace("average.", "network.")
        # Step 3: a decay of (1 + 3) / (10 + 3).
        expected = 4 / 13 * before[trained] + 9 / 13 * after[trained]
        torch.testing.assert_close(after[name], expected)


def test_validations_are_as_often_as_the_configuration_says(weather: Path) -> None:
    assert train(weather, "run", "train.val_every=6").code == 0
    assert [line["step"] for line in lines_of("run", "validation")] == [6, 12, 18, 20]
    assert pdr("train", "--resume", "-o", "run", "-q").code == 0
    assert [line["step"] for line in lines_of("run", "validation")] == [6, 12, 18, 20], "the end is validated once"


def rising(monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    """Let the validation loss rise after step `best`."""

    def scores(self: Validation, mode: str = "forecast") -> Scores:
        usual(self, mode)
        return Scores(1.0 + abs(steps[-1] - best), [1.0])

    def validate(self: Trainer) -> None:
        steps.append(self.position.step)
        validated(self)

    steps: list[int] = []
    usual, validated = Validation.scores, Trainer._validate
    monkeypatch.setattr(Validation, "scores", scores)
    monkeypatch.setattr(Trainer, "_validate", validate)


def test_training_ends_after_validations_without_a_new_best(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch, 4)
    result = train(weather, "run", "train.val_every=2", "train.patience=3")
    assert result.code == 0, result.err
    assert "10 steps in" in result.err
    assert "best validation loss 1.0000 at step 4; ended early, after 3 validations without a lower loss" in result.err
    assert lines_of("run", "finished")[0]["step"] == 10
    result = pdr("train", "--resume", "-o", "run")
    assert (result.code, lines_of("run", "finished")[-1]["step"]) == (0, 10), "a run that has ended so stays ended"


def test_a_resumed_run_ends_as_early_as_a_whole_one(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch, 4)
    interrupt(monkeypatch, 7)
    assert train(weather, "run", "train.val_every=2", "train.patience=3").code == 143
    assert pdr("train", "--resume", "-o", "run", "-q").code == 0
    assert lines_of("run", "finished")[0]["step"] == 10
    more = ("--resume", "--steps", "14")
    assert train(weather, "run", "train.val_every=2", "train.patience=0", more=more).code == 0
    assert lines_of("run", "finished")[-1]["step"] == 14, "without patience, the run goes on"


def test_cpu_time_ends_a_run_and_is_kept(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr("pdr_cli.training.length.time.process_time", lambda: float(next(seconds)))
    result = train(weather, "run", "train.cpu_budget=9s")
    assert (result.code, "; ended by train.cpu_budget" in result.err) == (0, True), result.err
    first = state.read(RunFolder(Path("run")).state)[0]
    assert (first.cpu >= 9, 0 < first.step < 20) == (True, True)
    result = train(weather, "run", "train.cpu_budget=19s", more=("--resume", "--steps", "20"))
    second = state.read(RunFolder(Path("run")).state)[0]
    assert (result.code, second.cpu >= 19, second.step > first.step) == (0, True, True), result.err
    assert lines_of("run", "finished")[-1]["cpu_seconds"] == second.cpu


def test_a_clock_counts_the_processors_and_not_the_wall_for_cpu_time() -> None:
    position = Position(elapsed=100, cpu=50)
    clock = Clock(position)
    total = 0.0
    while position.cpu < 50.05:
        total += float(np.ones(1000).sum())
        clock.stamp(position)
    assert 100 < position.elapsed < 110


def length(**limits: object) -> Length:
    settings = [f"train.{key}={value}" for key, value in limits.items()]
    return Length.of(config.load("demo", ["train.batch=10", "train.budget=", *settings]).train, 100)


def test_time_sets_the_pace_only_where_it_runs_ahead_of_the_steps() -> None:
    both = length(steps=100, cpu_budget="100s")
    assert (both.steps, both.cpu_seconds, both.grace) == (100, 100, GRACE)
    # Slow first steps: a twentieth of the time for a hundredth of the steps does not change the learning rate.
    assert both.progress(Position(step=1, cpu=5)) == 0.01
    assert both.progress(Position(step=50, cpu=52)) == 0.5
    # Twice as slow as planned: the schedule ends with the time.
    assert both.progress(Position(step=25, cpu=52.5)) == pytest.approx(0.5)
    assert both.progress(Position(step=50, cpu=100)) == 1
    assert both.reached(Position(step=50, cpu=100))
    assert not both.reached(Position(step=99, cpu=99))


def test_time_alone_sets_the_pace_from_the_first_step() -> None:
    timed = length(steps=0, budget="10s", cpu_budget="")
    assert timed.pace(Position(step=1, elapsed=0.5)) == pytest.approx(0.05)
    assert timed.time_share(Position(elapsed=1, cpu=50)) == pytest.approx(0.1)


def test_a_rollout_trains_on_all_of_its_frames_and_leaves_validation_and_model_alone(
    weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, usual = [], ForecastLesson.learn

    def learn(self: ForecastLesson, batch: WeightedBatch, at_once: int, randomness: Randomness) -> object:
        out = usual(self, batch, at_once, randomness)
        frames.append((self.data.train.out_steps, self.data.val.out_steps, batch.inputs.target.shape[1]))
        return out

    monkeypatch.setattr(ForecastLesson, "learn", learn)
    assert train(weather, "run", "train.rollout=3", more=("--steps", "1")).code == 0
    assert frames == [(12, 4, 12)]
    assert modelfile.read(Path("run/model.safetensors")).card.config.data.out_steps == 4


@pytest.mark.parametrize("anchor", ["anomaly", "ridge"])
def test_a_rollout_leaves_the_fit_of_the_anchor_alone(tmp_path: Path, anchor: str) -> None:
    data, saved = weather_file(tmp_path / "a.nc"), []
    for rollout in (1, 2):
        own = [f"model.anchor={anchor}", f"train.rollout={rollout}"]
        assert train(data, f"{rollout}", *own, more=("--steps", "1")).code == 0
        saved.append(modelfile.read(Path(f"{rollout}", "model.safetensors")).weights["anchor.share"])
    assert len(saved[0]) == len(saved[1]) == 4, "one share for each lead of the model"


def test_too_few_frames_for_a_rollout_name_it(weather: Path) -> None:
    result = train(weather, "run", "train.rollout=50")
    assert (result.code, "because train.rollout is 50" in result.last) == (65, True), result.last
    assert "--set train.rollout=1" in result.last


def test_a_run_without_anything_to_train_validates_and_saves_its_model(
    weather: Path, weather_run: Path, draw: Callable[[Path, Path], None]
) -> None:
    frozen = ["--init-from", str(weather_run), "--freeze-backbone"]
    result = train(weather, "run", "model.fusion=none", more=frozen)
    assert result.code == 0, result.err
    assert "done    nothing to train; validation loss 0." in result.err
    assert "leaves nothing to train" in result.err
    whole, again = (modelfile.read(Path(out, "model.safetensors")).weights for out in (weather_run, "run"))
    assert all(whole[name].equal(weight) for name, weight in again.items())
    assert [(line["step"], line["epoch"]) for line in lines_of("run", "validation")] == [(0, 0)]
    draw(Path("curves.png"), Path("run/metrics.jsonl"))
    assert Path("curves.png").stat().st_size > 0
    assert pdr("train", "--resume", "-o", "run", "-q").code == 0
    assert len(lines_of("run", "validation")) == len(lines_of("run", "finished")) == 1
    assert pdr("predict", weather, "-o", "f.nc", "-m", "run", "-q").code == 0


def test_a_plan_says_that_nothing_is_trained(weather: Path, weather_run: Path) -> None:
    more = ["--init-from", str(weather_run), "--freeze-backbone", "--dry-run"]
    result = train(weather, "run", "model.fusion=none", more=more)
    assert (result.code, "# steps       none: nothing to train" in result.out) == (0, True), result.err


def losing(monkeypatch: pytest.MonkeyPatch, model: Scores, anchor: Scores) -> None:
    """Give the network and its anchor these scores."""
    usual = Validation.scores

    def scores(self: Validation, mode: str = "forecast") -> Scores:
        usual(self, mode)
        return anchor if mode == "anchor" else model

    monkeypatch.setattr(Validation, "scores", scores)


def test_a_model_that_loses_to_its_anchor_is_replaced_by_it(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losing(monkeypatch, Scores(1.02, [2.04]), Scores(1.0, [2.0]))
    result = train(weather, "run", "train.fallback=true", more=("--steps", "2"))
    assert result.code == 0, result.err
    said = "persistence alone: validation loss 1, of the model 1.02 (+2.0 %), RMSE +2.0 %: the network does not earn its place"
    assert said in result.err
    assert "the anchor alone is saved as the model, and the network as state/model-1.safetensors" in result.err
    file = modelfile.read(Path("run/model.safetensors"))
    assert (file.card.config.model.backbone, file.card.config.model.fusion) == ("none", "none")
    assert (file.card.training["best_loss"], file.card.training["anchor_loss"]) == (1.02, 1.0)
    assert lines_of("run", "finished")[0]["anchor_rmse"] == [2.0]
    assert pdr("predict", weather, "-m", "run", "-o", "f.nc", "-q").code == 0
    with xr.open_dataset("f.nc") as forecast, xr.open_dataset(weather) as data:
        for frame in forecast.t2m.values:
            np.testing.assert_allclose(frame, data.t2m.values[-1], rtol=1e-6)  # scaled and back in float32
    network = Path("run/state/model-1.safetensors")
    assert modelfile.read(network).card.config.model.backbone == "tau"
    before = network.read_bytes()
    assert pdr("train", "--resume", "-o", "run", "-q").code == 0
    assert network.read_bytes() == before, "a finished run keeps both models"
    more = ("--resume", "--steps", "3")
    losing(monkeypatch, Scores(0.9, [2.0]), Scores(1.0, [2.0]))
    assert train(weather, "run", "train.fallback=true", more=more).code == 0
    assert modelfile.read(Path("run/model.safetensors")).card.config.model.backbone == "tau", (
        "it has become the better one"
    )


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        (Scores(1.009, [2.0]), ["train.fallback=true"], "does not earn its place; train longer"),
        (Scores(1.5, [2.0]), ["train.fallback=false"], "does not earn its place; train longer"),
        (Scores(0.9, [2.1]), ["train.fallback=true"], "the network has the lower loss and the larger errors"),
        (Scores(0.9, [1.9]), ["train.fallback=true"], "of the model 0.9 (-10.0 %), RMSE -5.0 %\n"),
    ],
)
def test_a_model_that_is_not_much_worse_than_its_anchor_stays(
    weather: Path, monkeypatch: pytest.MonkeyPatch, model: Scores, settings: list[str], says: str
) -> None:
    losing(monkeypatch, model, Scores(1.0, [2.0]))
    result = train(weather, "run", *settings, more=("--steps", "2"))
    assert (result.code, says in result.err) == (0, True), result.err
    file = modelfile.read(Path("run/model.safetensors"))
    assert file.card.config.model.backbone == "tau"
    assert file.card.training["anchor_loss"] == 1.0


def test_the_anchor_is_scored_on_the_windows_of_the_validation(weather: Path) -> None:
    assert train(weather, "run", "train.loss=mse", "train.batch=64", more=("--steps", "2")).code == 0
    found = lines_of("run", "finished")[0]
    prepared = training.open_data(config.load("run/config.toml"))
    observed, following = prepared.val.spread(8).batch(np.arange(min(8, len(prepared.val))))
    sd = modelfile.read(Path("run/model.safetensors")).card.scaling.scale[0]
    error = float(np.mean(((following - observed[:, -1:]) / sd) ** 2))
    assert found["anchor_loss"] == pytest.approx(error, rel=1e-5)  # float32
    assert found["anchor_rmse"] == pytest.approx([error**0.5], rel=1e-5)
    assert found["best_rmse"] == pytest.approx([found["best_loss"] ** 0.5], rel=1e-5)


def test_inspect_shows_the_scores_of_each_channel(traffic: Path) -> None:
    assert train(traffic, "run", "data.kind=any", more=("--steps", "1")).code == 0
    result = pdr("inspect", "run")
    rmse = modelfile.read(Path("run/model.safetensors")).card.training["anchor_rmse"]
    assert (result.code, f"anchor rmse  {rmse[0]}, {rmse[1]}" in result.out) == (0, True), result.err


def test_a_network_without_an_anchor_is_compared_with_none(weather: Path) -> None:
    result = train(weather, "run", "model.anchor=none", "train.fallback=true", more=("--steps", "2"))
    assert (result.code, "anchor  " in result.err) == (0, False), result.err
    assert "anchor_loss" not in modelfile.read(Path("run/model.safetensors")).card.training


def test_the_anchor_alone_is_a_run_without_steps(weather: Path) -> None:
    result = train(weather, "run", "model.backbone=none", "model.fusion=none")
    assert (result.code, "nothing to train" in result.err, "anchor  " in result.err) == (0, True, False), result.err


def test_dropout_draws_the_same_after_a_resume(weather: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n\n\ndef net(in_steps, channels, **_):\n"
        "    return nn.Sequential(nn.Flatten(1, 2), nn.Dropout(0.5), nn.Conv2d(4, 4, 3, padding=1), nn.Unflatten(1, (4, 1)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("--backbone", "dropping:net", "--set", "model.fusion=none")
    assert train(weather, "whole", more=("--steps", "12", *own)).code == 0
    interrupt(monkeypatch, 5)
    assert train(weather, "cut", more=("--steps", "12", *own)).code == 143
    result = train(weather, "cut", more=("--steps", "12", *own, "--resume"))
    assert result.code == 0, result.err
    whole, cut = (state.read(RunFolder(Path(out)).state)[1] for out in ("whole", "cut"))
    assert all(whole[name].equal(cut[name]) for name in whole)


def test_frames_read_ahead_change_no_number(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the run was interrupted."""
    assert train(weather, "plain", more=("--steps", "6")).code == 0
    assert train(weather, "ahead", "data.read_ahead=true", "data.cache_mb=1", more=("--steps", "6")).code == 0
    plain, ahead = (modelfile.read(Path(out, "model.safetensors")).weights for out in ("plain", "ahead"))
    assert all(plain[name].equal(ahead[name]) for name in plain)
    assert_resumes(weather, monkeypatch, ["data.read_ahead=true"], 6)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_a_recomputed_run_is_the_same(weather: Path) -> None:
    for out, recompute in (("plain", "false"), ("again", "true")):
        settings = [f"train.recompute={recompute}", "model.drop_path=0.2", "adapter=local"]
        assert train(weather, out, *settings, more=("--steps", "3")).code == 0
    plain, again = (modelfile.read(Path(out, "model.safetensors")).weights for out in ("plain", "again"))
    assert all(plain[name].equal(again[name]) for name in plain)


def test_a_run_on_crops_trains_and_forecasts_the_whole_grid_by_tiles(tmp_path: Path) -> None:
    data = weather_file(tmp_path / "a.nc", size=(40, 48))
    settings = ["train.crop=[16,24]", "model.tile=[16,24]", "model.tile_overlap=8", "adapter=local", "backbone=tau"]
    assert train(data, "run", *settings, more=("--steps", "3")).code == 0
    result = pdr("predict", data, "-o", "out.nc", "-m", "run")
    assert result.code == 0, result.err
    with xr.open_dataset("out.nc") as made:
        assert made.t2m.shape[-2:] == (40, 48)
        assert np.isfinite(made.t2m.values).all()
    assert train(data, "odd", "train.crop=[17,24]", "adapter=local", "backbone=tau").code == 78
