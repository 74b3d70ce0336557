"""`pdr train --ablation`: a grid of runs, resumable, and one table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdr_cli import choices, config
from pdr_cli.ablation import catalogue
from pdr_cli.ablation import run as ablation_run
from pdr_cli.ablation.catalogue import Ablation, Variant
from pdr_cli.ablation.run import AblationRun
from pdr_cli.ablation.summary import spread, summary
from pdr_cli.errors import InterruptedRun
from pdr_cli.training import run as training
from pdr_cli.training.loop import NonFiniteLossError, Trainer
from tests.cli import Result, pdr
from tests.conftest import tiny_settings
from tests.reliability.processes import LOCKS, another_process

SMALL = Ablation(
    "how much of L1",
    (
        Variant("half", {"train.l1_weight": 0.5}, {"TaxiBJ MSE": "0.2807"}),
        Variant("all of it", {"train.l1_weight": 1.0}, {"TaxiBJ MSE": "0.2907"}),
    ),
)


def stand_in(patch: pytest.MonkeyPatch, ablation: Ablation) -> None:
    """Let "small" be the name of an ablation; other names stay."""
    find = choices.ABLATIONS.find
    patch.setattr(catalogue, "find", lambda name, *_: ablation if name == "small" else find(name)())


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, SMALL)


def start(data: Path, out: Path, *more: str) -> Result:
    arguments = ["train", "--preset", "demo", "--data", data, "--ablation", "small", "-o", out, "--seeds", "2"]
    return pdr(*arguments, *tiny_settings(), *more)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, weather: Path) -> Iterator[tuple[Path, Result]]:
    """A small grid that ran to its end."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, SMALL)
        out = tmp_path_factory.mktemp("grid") / "g"
        result = start(weather, out, "--steps", "2")
        assert result.code == 0, result.err
        yield out, result


def test_every_variant_is_trained_with_every_seed(done: tuple[Path, Result]) -> None:
    out, result = done
    assert result.out.splitlines()[-1] == str(out)
    for name, weight in (("half", 0.5), ("all-of-it", 1.0)):
        for seed in (42, 43):
            trained = config.load(str(out / f"{name}-{seed}" / "config.toml"))
            assert (trained.train.l1_weight, trained.train.seed, trained.train.steps) == (weight, seed, 2)
            assert (out / f"{name}-{seed}" / "model.safetensors").is_file()


def test_table_keeps_the_papers_numbers_in_columns_of_their_own(done: tuple[Path, Result]) -> None:
    out, result = done
    plan = json.loads((out / "ablation.json").read_text())
    lines = (out / "ablation.md").read_text().splitlines()
    heads = next(line for line in lines if line.startswith("| variant")).split(" | ")
    assert heads[-1].strip(" |") == "TaxiBJ MSE (paper: A800, full data)"
    row = next(line for line in lines if line.startswith("| all of it")).strip("| ").split(" | ")
    assert row[-1] == "0.2907"
    values = [plan["results"]["all of it"][seed]["test"]["rmse"] for seed in ("42", "43")]
    mean, half = sum(values) / 2, abs(values[0] - values[1]) / 2
    shown = row[heads.index("rmse [K]")].split(" ± ")
    assert float(shown[0]) == pytest.approx(mean, rel=1e-3)
    # Of two values, the sample's deviation is half their distance times √2.
    assert float(shown[1]) == pytest.approx(half * 2**0.5, abs=2e-3)
    assert any(line.startswith("| persistence") for line in lines)
    assert any(line.startswith("| climatology") for line in lines)
    assert "seeds 42, 43" in lines[0]
    for word in ("paper: A800, full data", "0.2907", "persistence"):
        assert word in result.out


def test_resumed_grid_trains_only_what_is_missing(done: tuple[Path, Result]) -> None:
    out, _ = done
    table = (out / "ablation.md").read_text()
    plan = json.loads((out / "ablation.json").read_text())
    del plan["results"]["half"]["43"]
    (out / "ablation.json").write_text(json.dumps(plan))
    for file in (out / "half-43").rglob("*.safetensors"):
        file.unlink()
    kept = (out / "half-42" / "model.safetensors").stat().st_mtime_ns
    result = pdr("train", "--resume", "-o", out)
    assert result.code == 0, result.err
    assert "run     3 of 4: half, seed 43" in result.err
    assert result.err.count("run     ") == 1
    assert (out / "half-42" / "model.safetensors").stat().st_mtime_ns == kept
    assert (out / "ablation.md").read_text() == table, "the same seed gives the same scores"
    steps = [json.loads(line)["step"] for line in (out / "half-43" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "the log of the lost run is gone"


def test_one_process_at_a_time_works_on_a_grid(done: tuple[Path, Result]) -> None:
    with another_process(LOCKS, done[0]) as other:
        result = pdr("train", "--resume", "-o", done[0])
    assert (result.code, f"process {other.pid} on " in result.last) == (75, True), result.last


def test_interruption_names_the_grid_and_the_grid_goes_on(
    tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.fit

    def interrupted(*arguments: Any) -> None:
        raise InterruptedRun("SIGTERM at step 1", 15)

    monkeypatch.setattr(training, "fit", interrupted)
    result = start(weather, tmp_path / "g", "--steps", "1")
    assert result.code == 143
    assert f"--resume -o {tmp_path / 'g'}" in result.last
    monkeypatch.setattr(training, "fit", whole)
    assert pdr("train", "--resume", "-o", tmp_path / "g", "--ablation", "small").code == 0
    assert (tmp_path / "g" / "ablation.md").is_file()


def test_test_part_is_not_looked_at_before_all_are_trained(
    tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    whole = ablation_run._score

    def score(grid: AblationRun, *arguments: Any) -> None:
        trained.append(len(list(grid.path.glob("*/model.safetensors"))))
        whole(grid, *arguments)

    monkeypatch.setattr(ablation_run, "_score", score)
    assert start(weather, tmp_path / "g", "--steps", "1").code == 0
    assert trained == [4, 4, 4, 4]


@pytest.mark.parametrize(
    # 80 % of 60 s for two variants of 0.5 s a step and two seeds: 48 / (2 · 2 · 0.5) = 24 steps.
    ("more", "steps"),
    [(["--budget", "60s"], 24), (["--budget", "60s", "--steps", "7"], 7)],
)
def test_budget_is_for_the_whole_grid(
    tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], steps: int
) -> None:
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self: 0.5)
    monkeypatch.setattr(ablation_run, "_train_all", lambda *_: None)
    monkeypatch.setattr(ablation_run, "_score_all", lambda *_: None)
    assert start(weather, tmp_path / "g", *more).code == 0
    assert json.loads((tmp_path / "g" / "ablation.json").read_text())["steps"] == steps


def test_variant_that_diverges_is_said_to(tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.fit

    def fit(run: training.Run) -> Any:
        if (run.config.train.l1_weight, run.config.train.seed) == (1.0, 43):
            raise NonFiniteLossError("the loss is nan at step 1")
        return whole(run)

    monkeypatch.setattr(training, "fit", fit)
    assert start(weather, tmp_path / "g", "--steps", "1").code == 0
    table = (tmp_path / "g" / "ablation.md").read_text()
    assert "| all of it (1 failed) |" in table
    assert "all of it: the loss is nan at step 1" in table
    assert "| half |" in table


def test_variant_that_cannot_be_built_leaves_the_others(
    tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows of 4 x 4 do not tile 7 x 8, the latent plane of 13 x 15.
    variants = (Variant("tau", {"model.backbone": "tau"}), Variant("swin", {"model.backbone": "swin"}))
    stand_in(monkeypatch, Ablation("predictors", variants))
    result = start(weather, tmp_path / "g", "--budget", "5s")
    assert result.code == 0, result.err
    assert "swin (2 failed)" in result.out
    assert "swin: swin needs a latent plane tiled by windows" in (tmp_path / "g" / "ablation.md").read_text()
    stand_in(monkeypatch, Ablation("predictors", variants[1:]))
    result = start(weather, tmp_path / "h", "--steps", "1")
    assert (result.code, "none of the 2 runs" in result.last) == (65, True), result.last


def test_data_that_are_not_there_leave_no_folder(tmp_path: Path) -> None:
    result = start(tmp_path / "nothing.nc", tmp_path / "g")
    assert result.code == 66
    assert not (tmp_path / "g").exists()


def test_change_is_between_runs_of_the_same_seed(tmp_path: Path) -> None:
    base = config.load("demo")
    results = {
        "half": {"1": {"test": {"rmse": 2.0}}, "2": {"test": {"rmse": 4.0}}},
        "all of it": {"1": {"test": {"rmse": 1.8}}, "2": {"test": {"rmse": 4.4}}},
    }
    variants = {variant.name: dict(variant.settings) for variant in SMALL.variants}
    plan = {"ablation": "small", "variants": variants, "seeds": [1, 2], "results": results}
    row = summary(AblationRun(tmp_path, plan, base))["rows"]["all of it"]
    # -10 % and +10 %: mean 0, sd of a sample √(0.01 + 0.01).
    assert row["change"] == {
        "mean": pytest.approx(0, abs=1e-12),
        "sd": pytest.approx(0.02**0.5),
        "n": 2,
    }


def test_spread_of_one_value_is_not_known() -> None:
    assert spread([3.0]) == {"mean": 3.0, "sd": None, "n": 1}
    assert spread([]) == {"mean": None, "sd": None, "n": 0}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--ablation", "fussion"], 2, "Did you mean 'fusion'"),
        (["--ablation", "small", "--freeze-backbone"], 2, "leave out --init-from and --freeze-backbone"),
        (["--ablation", "small", "--resume"], 66, "no ablation to resume"),
    ],
)
def test_mistakes_are_named(weather: Path, arguments: list[str], code: int, says: str) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "-o", "g", *arguments)
    assert (result.code, says in result.last) == (code, True), result.last
    assert not Path("g").exists()


def test_folder_of_something_else_is_left_alone(done: tuple[Path, Result], weather: Path) -> None:
    out, _ = done
    result = start(weather, out)
    assert (result.code, f"--resume -o {out}" in result.last) == (73, True)
    result = pdr("train", "--resume", "-o", out, "--ablation", "fusion")
    assert (result.code, "holds the ablation small" in result.last) == (2, True)


def test_dry_run_lists_the_runs(weather: Path, tmp_path: Path) -> None:
    result = start(weather, tmp_path / "g", "--dry-run")
    assert result.code == 0
    assert "all of it, seed 43: --set train.l1_weight=1.0" in result.out
    assert not (tmp_path / "g").exists()


def test_scores_of_the_table_alone_are_computed(tmp_path: Path, longer_weather: Path) -> None:
    result = start(longer_weather, tmp_path / "g", "--steps", "1", "--seeds", "1", "--set", "train.val_windows=40")
    assert result.code == 0, result.err
    assert "intervals from the errors of" in result.err
    assert "in that period" not in result.err  # of intervals, which the table does not have


def test_budget_is_measured_on_every_variant(tmp_path: Path, weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[float] = []
    whole = Trainer.seconds_per_step

    def seconds(trainer: Trainer) -> float:
        timed.append(whole(trainer, 1))
        return timed[-1]

    monkeypatch.setattr(Trainer, "seconds_per_step", seconds)
    monkeypatch.setattr(ablation_run, "_train_all", lambda *_: None)
    monkeypatch.setattr(ablation_run, "_score_all", lambda *_: None)
    result = start(weather, tmp_path / "g", "--budget", "10s")
    assert result.code == 0
    assert len(timed) == 2
    assert "measuring a step of each of 2 variants" in result.err
    expected = int(0.8 * 10 / (2 * sum(timed)))
    assert json.loads((tmp_path / "g" / "ablation.json").read_text())["steps"] == max(1, expected)
