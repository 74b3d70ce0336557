"""`--ablation scenes`: variants that share the parts before the Reconstructor, and the scores of `pdr evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pdr_cli import config
from pdr_cli.ablation import catalogue
from pdr_cli.ablation import scenes as ablation
from pdr_cli.drawing import pictures
from pdr_cli.errors import InterruptedRun
from pdr_cli.training import state
from pdr_cli.training.loop import Trainer
from pdr_cli.training.scenes import parts
from tests.builders import scenes_file
from tests.cli import Result, pdr
from tests.training.scenes.test_lesson import TINY

SMALL = [
    word for setting in (*TINY, "log_every=1", "val_every=3", "latent.flow_steps=1") for word in ("--set", setting)
]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 scenes of 5 frames of 16 x 16."""
    return scenes_file(tmp_path_factory.mktemp("scenes") / "scenes.h5", 20, size=(2, 5, 16, 16))


def start(data: Path, *more: str | Path) -> Result:
    return pdr("train", "--preset", "scenes-small", "--data", data, *SMALL, *more)


def only(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    whole = catalogue.scenes()
    few = tuple(variant for variant in whole.variants if variant.name in names)
    chosen = catalogue.Ablation(whole.about, few, of_scenes=True)
    monkeypatch.setattr(catalogue, "find", lambda name, *_: chosen)


def lines_of(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "cpu_seconds")} for line in lines]


def test_shared_parts_give_the_numbers_of_a_training_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten steps: three of the VAE, two of the generator, five of the Reconstructor, whose curves are five numbers in place of 3.
    only(monkeypatch, ["full", "free curves"])
    done = start(data, "--ablation", "scenes", "--seeds", "1", "--steps", "10", "-o", "a")
    assert done.code == 0, done.err
    assert len(list(Path("a").glob("parts-42-*"))) == 1
    for name, settings in (("full", []), ("free-curves", ["--set", "model.deform_basis=free"])):
        shared, alone = Path(f"a/{name}-42"), Path(f"alone-{name}")
        assert start(data, "--steps", "10", "--set", "train.epochs=1000000", *settings, "-o", alone).code == 0
        assert lines_of(shared) == lines_of(alone)
        one, two = (state.read(run / "state" / "last.safetensors")[1] for run in (shared, alone))
        assert one.keys() == two.keys()
        assert [key for key in one if not one[key].equal(two[key])] == []


def test_what_trains_the_first_parts_otherwise_does_not_share_them() -> None:
    base = config.load("scenes-small")
    changed = {
        variant.name: config.load("scenes-small", [f"{key}={value}" for key, value in variant.settings.items()])
        for variant in catalogue.scenes().variants
    }
    sharing = [name for name, one in changed.items() if parts.alike(one) == parts.alike(base)]
    assert sharing == [name for name in changed if name != "no latents"]
    for other in (
        "train.seed=7",
        "latent.channels=4",
        "model.hid_s=16",
        "scene.frames=2",
        "train.lr=0.001",
        "scene.blocks=3",
    ):
        assert parts.alike(config.load("scenes-small", [other])) != parts.alike(base), other


@pytest.mark.slow
def test_an_interrupted_ablation_resumes_and_ends_with_its_table(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ["full", "no loss of ways", "no deformation", "no latents"])
    stops = [2, 7]  # in the shared parts, and in a Reconstructor

    def stop(trainer: Trainer, received: list[int]) -> None:
        if stops and trainer.position.step == stops[0]:
            trainer.save()
            raise InterruptedRun("stopped", stops.pop(0) and 15)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stop_on", stop)
        assert start(data, "--ablation", "scenes", "--seeds", "1", "--steps", "10", "-o", "a").code == 143
        assert pdr("train", "--resume", "-o", "a").code == 143
    resumed = pdr("train", "--resume", "-o", "a")
    assert resumed.code == 0, resumed.err
    whole = start(data, "--ablation", "scenes", "--seeds", "1", "--steps", "10", "-o", "b")
    assert whole.code == 0, whole.err
    made, expected = (json.loads(Path(run, "ablation.json").read_text())["results"] for run in ("a", "b"))
    scores = {name: result["42"]["test"] for name, result in made.items()}
    assert scores == {name: result["42"]["test"] for name, result in expected.items()}
    still = scores["no deformation"]
    # What stands still is as far from the truth as it is when the curves of another model are left out.
    table = json.loads(Path("a/ablation.json").read_text())
    assert still["epe"] == still["epe, drawn"] == table["baselines"]["test"]["standing still"]["epe"]
    assert still["psnr"] == still["psnr, still"]
    assert scores["full"]["epe"] != still["epe"]
    assert "psnr, drawn" not in scores["no latents"]
    text = Path("a/ablation.md").read_text()
    assert "2 test scenes" in text
    for row in ("no latents", "no deformation", "standing still", "copy", "truth"):
        assert f"| {row} |" in text, row
    assert config.load("a/no-latents-42/config.toml").train.steps == 5, "as many as the others' Reconstructors have"


def test_a_budget_counts_shared_parts_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self: 0.5)
    monkeypatch.setattr("pdr_cli.ablation.run._train_all", lambda *_: None)
    monkeypatch.setattr("pdr_cli.ablation.run._score_all", lambda *_: None)
    done = start(data, "--ablation", "scenes", "--seeds", "2", "--budget", "100s", "-o", "a")
    assert done.code == 0, done.err
    # A step of all has 0.3 of the VAE and 0.2 of the generator, shared, and 0.5 of each of eight Reconstructors, at 0.5 s:
    # 0.5 * (0.5 + 8 * 0.5) = 2.25 s; into 80 s for two seeds fit 80 / 4.5 = 17 steps.
    assert json.loads(Path("a/ablation.json").read_text())["steps"] == 17
    assert [line.split()[0] for line in done.err.splitlines()] == ["data", "split", "time"], (
        "each variant is measured in silence"
    )


def test_it_is_of_scenes_alone(weather: Path) -> None:
    done = pdr("train", "--preset", "weather-small", "--data", weather, "--ablation", "scenes", "-o", "a")
    assert (done.code, "take --preset scenes-small" in done.last) == (2, True), done.err
    assert not Path("a").exists()


def test_steps_without_parts_are_those_of_the_reconstructor() -> None:
    base = config.load("scenes-small")
    assert ablation.steps_of(base, {"scene.parts": []}, 1000) == 500
    assert ablation.steps_of(base, {"scene.latents": "true"}, 1000) == 1000
    assert ablation.steps_of(config.load("demo"), {}, 1000) == 1000
