"""`--ablation predictive`: a VAE for each variant, a generator in its latents, and the scores of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdr_cli import families
from pdr_cli.ablation import catalogue, latents
from pdr_cli.ablation.catalogue import Ablation
from pdr_cli.drawing import pictures
from pdr_cli.errors import InterruptedRun
from pdr_cli.training.loop import Trainer
from tests.cli import Result, pdr

SETTINGS = ("hid_s=4", "hid_t=8", "latent.channels=2", "latent.flow_width=8", "latent.flow_depth=1", "log_every=1")
SHORT = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(autouse=True)
def two_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the third of the variants alone, with generators that take less time."""
    whole = catalogue.predictive()
    then = dict(whole.then) | {"train.batch": 2, "train.val_windows": 2, "latent.flow_steps": 1}
    few = Ablation(whole.about, (whole.variants[0], whole.variants[2]), then)
    monkeypatch.setattr(catalogue, "predictive", lambda: few)
    monkeypatch.setattr(pictures, "curves", lambda *_: None)
    monkeypatch.setattr("pdr_cli.verification.latents.MOST", 8)
    families.imported.cache_clear()


def start(data: Path, *more: str) -> Result:
    arguments = ("--ablation", "predictive", "--seeds", "1", "-o", "g")
    return pdr("train", "--preset", "weather-latent", "--data", data, *arguments, *more)


def test_a_grid_of_latents_ends_with_its_table_and_resumes(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(trainer: Trainer, received: list[int]) -> None:
        if trainer.network.stochastic and trainer.position.step == 4:
            trainer.save()
            raise InterruptedRun("stopped", 15)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stop_on", stop)
        assert start(weather, *SHORT, "--set", "train.batch=2", "--steps", "8").code == 143
    resumed = pdr("train", "--resume", "-o", "g")
    assert resumed.code == 0, resumed.err
    assert "run     2 of 4: drop none, difference 1, seed 42, then" in resumed.err
    plan = json.loads(Path("g/ablation.json").read_text())
    first, second = (plan["results"][f"drop {drop}, difference 1"]["42"]["test"] for drop in ("none", "mix"))
    columns = {"rmse", "reconstruction", "predictability", "crps", "val crps", "val crps at 12.5 %", "val crps at 50 %"}
    assert set(first) >= columns
    assert first["steps to the first's, share"] is not None
    assert first["predictability"] <= 1
    assert second["reconstruction"] > 0
    assert "| drop mix, difference 1 |" in Path("g/ablation.md").read_text()


def test_latents_are_compared_on_presets_that_have_some(weather: Path) -> None:
    arguments = ("--ablation", "predictive", "--steps", "2", "-o", "g")
    refused = pdr("train", "--preset", "weather-small", "--data", weather, *arguments)
    assert refused.code != 0
    assert "--preset weather-latent" in refused.last


def test_what_a_curve_of_validations_gives() -> None:
    curve = [(2, 0.9), (4, 0.6), (6, 0.5), (8, 0.55)]
    assert latents.at(curve, 0.5) == 0.6
    assert latents.at(curve, 1.0) == 0.55
    assert latents.reached(curve, 0.6) == 0.5
    assert latents.reached(curve, 0.4) is None
