"""A predictive VAE and the generators in its latents: trained, resumed, used, exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.errors import InterruptedRun
from pdr_cli.inference import model as inference
from pdr_cli.inference.members import seeds_of
from pdr_cli.runs import modelfile
from pdr_cli.training.loop import Trainer
from tests.cli import pdr

SMALL = ("hid_s=4", "hid_t=8", "latent.channels=2", "latent.flow_width=8", "latent.flow_depth=1", "train.batch=2")
SMALL += ("latent.flow_steps=2", "train.baselines=false", "val_windows=2", "train.val_every=4", "log_every=1")
SHORT = [part for setting in SMALL for part in ("--set", setting)]
SHORT += ["--steps", "4", "-q"]


@pytest.fixture(scope="module")
def vae_run(weather: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latent") / "pv"
    trained = pdr("train", "--preset", "weather-latent", "--data", weather, "-o", folder, *SHORT)
    assert trained.code == 0, trained.err
    return folder


@pytest.fixture(scope="module")
def train_members(weather: Path, vae_run: Path) -> Callable[..., Path]:
    """Train a generator in a folder of that name, in the current folder."""

    def train(name: str, *more: str) -> Path:
        arguments = ("train", "--preset", "weather-ensemble", "--data", weather, "--init-from", vae_run, "-o", name)
        trained = pdr(*arguments, *SHORT, *more)
        assert trained.code == 0, trained.err
        return Path(name).absolute()

    return train


@pytest.fixture(scope="module")
def members_run(train_members: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_members(str(tmp_path_factory.mktemp("members") / "ens"))


def weights(run: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in modelfile.read(run / "model.safetensors").weights.items()}


def test_the_generator_learns_on_a_vae_that_stays(vae_run: Path, members_run: Path) -> None:
    before, after = weights(vae_run), weights(members_run)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert after["predictor.members.measured"]
    assert after["predictor.members.spread"].min() > 0
    assert after["predictor.members.generator.leave.weight"].any()


def test_members_repeat_and_the_direct_forecast_is_that_of_the_vae(
    weather: Path, members_run: Path, vae_run: Path
) -> None:
    with xr.open_dataset(weather) as opened:
        observed = np.stack([opened.t2m.values[i : i + 4, None] for i in (0, 50)])
    model, alone = (inference.load(run / "model.safetensors", "cpu") for run in (members_run, vae_run))
    seeds = seeds_of(1, 5, ["a", "b"])
    made = model.members(observed, seeds)
    assert made.shape == (5, 2, 4, 1, 13, 15)
    assert np.isfinite(made).all()
    assert made.std(0).min() > 0
    assert np.array_equal(made, model.members(observed, seeds))
    few = inference.load(members_run / "model.safetensors", "cpu", batch=3).members(observed[:1], seeds_of(1, 3, ["a"]))
    np.testing.assert_allclose(few[:, 0], made[:3, 0], rtol=0, atol=1e-3)  # K, in another batch
    assert not np.allclose(made[:, :1], model.members(observed[:1], seeds_of(2, 5, ["a"])), atol=1e-3)
    assert np.array_equal(model.run(observed).fused, alone.run(observed).fused)
    assert model.stochastic
    assert not alone.stochastic


def test_a_generator_resumes_to_the_same_weights_with_their_averages(
    train_members: Callable[..., Path], members_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trainer: Trainer, received: list[int]) -> None:
        if trainer.position.step == 2:
            trainer.save()
            raise InterruptedRun("stopped", 15)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stop_on", stop)
        with pytest.raises(AssertionError, match="stopped"):
            train_members("cut")
    assert pdr("train", "--resume", "-o", "cut", "-q").code == 0
    whole, cut = weights(members_run), weights(Path("cut"))
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


def test_a_generator_without_a_vae_is_refused(weather: Path) -> None:
    refused = pdr("train", "--preset", "weather-ensemble", "--data", weather, "-o", "ens", *SHORT)
    assert refused.code == 78
    assert "--init-from" in refused.last
    assert not Path("ens").exists()


def test_a_vae_of_other_latents_is_refused(weather: Path, vae_run: Path) -> None:
    arguments = ("train", "--preset", "weather-ensemble", "--data", weather, "--init-from", vae_run, "-o", "ens")
    refused = pdr(*arguments, *SHORT, "--set", "latent.channels=3")
    assert refused.code == 65
    assert "--set latent.channels=2" in refused.last


def test_a_plain_vae_is_chosen_by_its_reconstruction(weather: Path) -> None:
    arguments = ("train", "--preset", "weather-latent", "--data", weather, "-o", "plain", *SHORT)
    assert pdr(*arguments, "--set", "latent.drop=none").code == 0
    header = modelfile.read(Path("plain/model.safetensors")).card
    assert header.config.latent is not None
    assert header.config.latent.drop == "none"
    # The mean squared errors of frames in units of their standard deviation: a forecast's error alone would be smaller.
    assert header.training["best_loss"] > header.training["best_rmse"][0] ** 2


def test_gaussians_on_a_frozen_vae(weather: Path, vae_run: Path) -> None:
    arguments = ("train", "--preset", "weather-latent", "--data", weather, "--init-from", vae_run, "-o", "gs", *SHORT)
    assert pdr(*arguments, "--freeze-backbone", "--adapter", "local", "--fusion", "add").code == 0
    before, after = weights(vae_run), weights(Path("gs"))
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("predictor."))


@pytest.mark.parametrize("suffix", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_direct_forecast_is_exported(members_run: Path, suffix: str) -> None:
    exported = pdr("export", "-m", members_run, "-o", f"ens.{suffix}")
    assert exported.code == 0, exported.err


@pytest.mark.parametrize("preset", ["video-latent", "video-ensemble"])
def test_the_presets_of_video(preset: str, clip: Path, tmp_path: Path) -> None:
    small = [*SHORT, "--set", "data.in_steps=4", "--set", "data.out_steps=4", "--set", "data.size=[16,16]"]
    arguments = ("train", "--preset", "video-latent", "--data", clip, "-o", "pv", *small)
    assert pdr(*arguments).code == 0
    if preset == "video-ensemble":
        ensemble = ("train", "--preset", preset, "--data", clip, "--init-from", "pv", "-o", "ens", *small)
        trained = pdr(*ensemble)
        assert trained.code == 0, trained.err


def test_members_depart_from_the_forecast_of_a_run_that_travels_in_the_file(
    weather: Path, train_members: Callable[..., Path], make_run: Callable[..., Path]
) -> None:
    settings = ("train.baselines=false", "data.calendar=hour", "data.back=1d", "model.inputs=anomalies")
    given = [part for setting in settings for part in ("--set", setting)]
    guide = make_run(weather, "--backbone", "unet", "--anchor", "ridge", "--fusion", "none", *given)
    shutil.copytree(guide, "guide")
    with xr.open_dataset(weather) as opened:
        expected = pdr_cli.load("guide").predict(opened)
        run = train_members("ens", "--set", "latent.guess=guide")
        shutil.rmtree("guide")
        made = pdr_cli.load(run).predict(opened)
    np.testing.assert_allclose(made.t2m.values, expected.t2m.values, rtol=0, atol=1e-3)  # K
    before, after = (weights(run) for run in (guide, run))
    assert all(np.array_equal(value, after[f"anchor.network.{name}"]) for name, value in before.items())
    model = inference.load(run / "model.safetensors", "cpu")
    assert model.stochastic
    assert model.card.config.guide is not None


def test_a_guess_of_other_frames_is_refused(weather: Path, vae_run: Path, make_run: Callable[..., Path]) -> None:
    guide = make_run(weather, "--set", "data.out_steps=2", "--set", "train.baselines=false")
    arguments = ("train", "--preset", "weather-ensemble", "--data", weather, "--init-from", vae_run, "-o", "ens")
    refused = pdr(*arguments, *SHORT, "--set", f"latent.guess={guide}")
    assert refused.code == 78
    assert "data.out_steps is 2, not 4" in refused.last


def test_probes_read_the_latents(weather: Path, vae_run: Path, weather_run: Path) -> None:
    arguments = ("--metrics", "rmse,probe", "--against", "persistence")
    found = pdr("evaluate", weather, "-m", vae_run, *arguments, "--json", "--report", "page.html")
    assert found.code == 0, found.err
    scores = json.loads(found.out)
    probe = scores["probe"]["pv"]
    assert probe["fitted_to"] == "training windows"
    assert (probe["scored"], probe["fitted"] > 100) == (scores["n_windows"], True)
    # Persistence of the probe and of the scores are the same at the first lead time.
    assert probe["following"]["without"] == pytest.approx(scores["scores"]["persistence"]["rmse"]["lead"][0], rel=1e-4)
    assert 0 < probe["following"]["pixels"] < probe["following"]["latents"], "two channels of 4 steps lose detail"
    assert probe["motion"]["pixels"] > 0
    assert "Linear probes" in Path("page.html").read_text(encoding="utf-8")
    halves = pdr("evaluate", weather, "-m", vae_run, *arguments, "--split", "all")
    assert (halves.code, "(first half)" in halves.out, "reconstruction, RMSE (K)" in halves.out) == (0, True, True)
    refused = pdr("evaluate", weather, "-m", weather_run, "--metrics", "probe")
    assert (refused.code, "no model has latents" in refused.err, "weather-latent" in refused.err) == (2, True, True)


def test_inflated_members_are_in_the_file_and_do_not_depend_on_each_other(
    weather: Path, vae_run: Path, members_run: Path, train_members: Callable[..., Path]
) -> None:
    run = train_members("inflated", "--set", "latent.inflate=val")
    before, after = weights(members_run), weights(run)
    factors = after["predictor.inflation"]
    assert factors.shape == (4,)
    assert (factors != 1).all()
    assert "predictor.inflation" not in before
    with xr.open_dataset(weather) as opened:
        observed = np.stack([opened.t2m.values[i : i + 4, None] for i in (0, 50)])
    plain, model = (inference.load(path / "model.safetensors", "cpu") for path in (members_run, run))
    seeds = seeds_of(1, 3, ["a", "b"])
    direct, drawn, made = plain.run(observed).fused, plain.members(observed, seeds), model.members(observed, seeds)
    assert np.array_equal(model.run(observed).fused, direct)
    # The networks are the same but for the validation of inflated members, by which no training was cut short.
    expected = direct + factors[:, None, None, None] * (drawn - direct)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-3)  # K
    np.testing.assert_allclose(model.members(observed, seeds[:2]), made[:2], rtol=0, atol=1e-3)
    size = (run / "model.safetensors").read_bytes()
    assert pdr("train", "--resume", "-o", run, "-q").code == 0
    assert (run / "model.safetensors").read_bytes() == size, "a finished run measures the same factors"


def test_inflation_of_what_does_not_depart_from_a_forecast_is_refused(weather: Path, vae_run: Path) -> None:
    arguments = (
        "train",
        "--preset",
        "weather-ensemble",
        "--data",
        weather,
        "--init-from",
        vae_run,
        "-o",
        "ens",
        *SHORT,
    )
    refused = pdr(*arguments, "--set", "latent.inflate=val", "--set", "latent.guess=none")
    assert (refused.code, "latent.guess=self" in refused.last) == (78, True)


STAGED = [*SHORT, "--steps", "6", "--set", "latent.stages=[0.33,0.33,0.34]", "--set", "train.ema=0"]


def test_a_vae_is_trained_in_stages_and_resumes_in_each(weather: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", "--preset", "weather-latent", "--data", weather, *STAGED)
    stops: list[int] = []
    kept: dict[int, dict[str, np.ndarray]] = {}

    def stop(trainer: Trainer, received: list[int]) -> None:
        step = trainer.position.step
        kept[step] = {name: value.numpy(force=True).copy() for name, value in trainer.network.state_dict().items()}
        if stops and step == stops[0]:
            stops.pop(0)
            trainer.save()
            raise InterruptedRun("stopped", 15)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stop_on", stop)
        assert pdr(*arguments, "-o", "whole").code == 0
        whole, stops[:] = dict(kept), [1, 3, 5]
        assert pdr(*arguments, "-o", "cut").code != 0
        for _ in range(2):
            assert pdr("train", "--resume", "-o", "cut", "-q").code != 0
        assert pdr("train", "--resume", "-o", "cut", "-q").code == 0
    assert all(np.array_equal(value, kept[6][name]) for name, value in whole[6].items())
    changed = {step: moved(whole[step], whole[step + 1]) for step in (1, 3, 4, 5)}
    assert changed == {1: {"encoder", "decoder"}, 3: {"encoder", "decoder", "tokens"}, 4: {"second"}, 5: {"second"}}
    lines = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["lr"] for line in lines if line["event"] == "step"]
    assert rates[2] > rates[3] < rates[4], "the rate rises anew: a schedule of its own in each stage"
    assert [line["step"] for line in lines if line["event"] == "validation"] == [4, 6], "in the last stage alone"
    assert "anchor_loss" not in lines[-1], "the sum of the terms of a VAE is not the loss of a forecast"
    assert pdr("predict", weather, "-m", "whole", "-o", "f.nc").code == 0


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    """The parts of the VAE that a step has changed."""
    return {name.split(".")[2] for name, value in before.items() if not np.array_equal(value, after[name])}


def test_members_are_decoded_by_the_second_decoder_of_the_vae(weather: Path, vae_run: Path) -> None:
    assert pdr("train", "--preset", "weather-latent", "--data", weather, *STAGED, "-o", "pv").code == 0
    arguments = ("train", "--preset", "weather-ensemble", "--data", weather, "-o", "ens", *SHORT)
    assert pdr(*arguments, "--init-from", "pv", "--set", "latent.stages=[0.33,0.33,0.34]").code == 0
    before, after = weights(Path("pv")), weights(Path("ens"))
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    refused = pdr(*arguments, "-o", "other", "--init-from", vae_run, "--set", "latent.stages=[0.33,0.33,0.34]")
    assert (refused.code, "--set latent.stages=[]" in refused.last) == (65, True)
    patience = pdr(
        "train", "--preset", "weather-latent", "--data", weather, *STAGED, "--set", "train.patience=2", "-o", "p"
    )
    assert (patience.code, "latent.stages" in patience.last) == (78, True)
