"""`pdr train --preset scenes-small`, as a user would type it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pdr_cli.data import scene_samples
from pdr_cli.data.formats import scenefile
from pdr_cli.data.scenes import Scene, Size
from pdr_cli.drawing import pictures
from pdr_cli.errors import UsageError
from pdr_cli.inference.scenes import load
from pdr_cli.models.lpips import LPIPS
from pdr_cli.models.scenes.build import build
from pdr_cli.runs import modelfile, tensors
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import devices
from pdr_cli.training import state
from pdr_cli.training.loop import Trainer
from tests.builders import scenes_file, weather_file
from tests.cli import Result, pdr
from tests.training.scenes.test_lesson import ORACLE, TINY

SIZE = (2, 5, 16, 16)
STAGES = "train.stages=[0.2,0.2,0.6]"


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves, which takes longer than these trainings."""
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 scenes of 5 frames of 16 x 16."""
    return scenes_file(tmp_path_factory.mktemp("scenes") / "scenes.h5", 40, size=SIZE)


def train(data: Path, out: str, steps: int, *settings: str, more: Sequence[str] = ()) -> Result:
    options = [word for setting in [*TINY, *ORACLE, *settings] for word in ("--set", setting)]
    arguments = ["--preset", "scenes-small", "--data", data, "-o", out, "--steps", str(steps), *options, *more]
    return pdr("train", *arguments)


def lines_of(out: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "cpu_seconds")} for line in lines]


def test_a_short_training_beats_the_copied_picture_from_another_camera(tmp_path: Path) -> None:
    larger = scenes_file(tmp_path / "larger.h5", 40, size=(2, 5, 32, 32))
    result = train(larger, "run", 100, "scene.width=16", STAGES, "train.val_every=20", "train.log_every=1")
    assert result.code == 0, result.err
    steps = [line["loss"] for line in lines_of("run") if line["event"] == "step"]
    assert sum(steps[32:40]) < 0.8 * sum(steps[:8]), "standing still, until step 40"
    assert sum(steps[-8:]) < 0.9 * sum(steps[40:48]), "moving"
    finished = lines_of("run")[-1]
    # Of validation scenes, frames after the first, by the camera that the model is not given.
    assert finished["best_loss"] < 0.9 * finished["anchor_loss"]
    assert "dB, the picture in their place" in result.err


def test_the_model_file_alone_builds_the_network_and_names_its_scenes(scenes: Path) -> None:
    assert train(scenes, "run", 2, more=["-q"]).code == 0
    file = modelfile.read(Path("run/model.safetensors"))
    network = build(file.card.config, file.card.size)
    tensors.restore(network, file.weights)
    assert (file.card.kind, file.card.size, list(file.card.variables)) == ("scene", (16, 16), ["red", "green", "blue"])
    assert file.card.step.count == 1 / 8
    assert [part for part, *_ in file.card.seen.entries] == ["train"] * 32 + ["val"] * 4
    assert file.climatology.coefficients.shape == (1, 3, 16, 16)
    assert 0 < file.climatology.coefficients.mean() < 255
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("latents", ["oracle", "mixed"])
def test_an_interrupted_run_resumes_to_the_same_numbers(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, latents: str
) -> None:
    parts = "[]" if latents == "oracle" else "[0.3, 0.2, 0.5]"
    settings = [f"scene.latents={latents}", f"scene.parts={parts}", "train.val_every=4", "train.log_every=1"]
    assert train(scenes, "whole", 12, *settings).code == 0
    usual, sent = Trainer._batch, []

    def batch(self: Trainer) -> object:
        if self.position.step == 7 and not sent:
            sent.append(7)
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(self)

    monkeypatch.setattr(Trainer, "_batch", batch)
    assert train(scenes, "cut", 12, *settings).code == 143
    result = pdr("train", "--resume", "-o", "cut", "-q")
    assert result.code == 0, result.err
    whole, cut = (state.read(RunFolder(Path(out)).state)[1] for out in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert [name for name in whole if not whole[name].equal(cut[name])] == []
    assert lines_of("whole") == lines_of("cut")


def test_a_dry_run_describes_the_run_and_leaves_nothing(scenes: Path) -> None:
    result = train(scenes, "run", 2, more=["--dry-run"])
    assert result.code == 0, result.err
    assert "32 / 4 / 4 scenes to train / validate / test" in result.out
    assert "(256 Gaussians)" in result.out
    assert not Path("run").exists()


def test_the_preset_for_a_gpu_fits_pictures_of_256_pixels(tmp_path: Path) -> None:
    small = Size(2, 9, 32, 32)
    data, scenes = tmp_path / "large.h5", (larger(scene_samples.make(0, n, small), 8) for n in range(3))
    scenefile.write(data, scenes, 3, {"title": "test scenes"})
    result = pdr("train", "--preset", "scenes", "--data", data, "--dry-run")
    assert result.code == 0, result.err
    # 16 blocks of two convolutions, 2 (9 512² + 512) + 512 numbers each, are 75 million of them.
    assert re.search(
        r"Reconstructor 10\d,\d{3},\d{3} parameters \+ latents 4\d,\d{3},\d{3} \(65536 Gaussians\)", result.out
    )
    precision = "bf16" if devices.computes_bf16(torch.device("cpu")) else "fp32"
    assert f'precision = "{precision}"' in result.out


def larger(scene: Scene, times: int) -> Scene:
    """Each pixel as a square of `times` by `times`."""
    image = scene.image.repeat(times, axis=2).repeat(times, axis=3)
    depth, track, moving = (
        x.repeat(times, axis=-2).repeat(times, axis=-1) for x in (scene.depth, scene.track, scene.moving)
    )
    return replace(scene, image=image, depth=depth, track=track, moving=moving)


@pytest.mark.parametrize(
    ("settings", "more", "code", "says"),
    [
        (["data.out_steps=8"], [], 78, "have 5 frames, and data.out_steps is 8; take --set data.out_steps=4"),
        (["train.fallback=true"], [], 78, "scenes have no anchor to fall back to"),
        (["scene.near=9"], [], 78, "near must be smaller"),
        (["scene.parts=[0.2,0.3,0.5]"], [], 78, "none and oracle take []"),
        (
            ["scene.latents=true", "scene.parts=[0.2,0.3,0.5]", "latent.guess=self"],
            [],
            78,
            "flow or crps, and guess none",
        ),
        ([], ["--init-from", "other"], 2, "scenes are trained from new weights"),
        ([], ["--ablation", "loss"], 2, "--ablation loss is of forecasts, and --preset scenes-small of moving scenes"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    scenes: Path, settings: list[str], more: list[str], code: int, says: str
) -> None:
    result = train(scenes, "run", 2, *settings, more=more)
    assert (result.code, says in result.err) == (code, True), result.err
    assert not Path("run/model.safetensors").exists()


def test_pictures_that_cannot_be_halved_so_often_name_the_stage(tmp_path: Path) -> None:
    data = scenes_file(tmp_path / "odd.h5", 3, size=(2, 5, 20, 20))
    result = train(data, "run", 2, STAGES)
    assert (result.code, "--set train.stages=[0,0.6,0.4]" in result.last) == (78, True), result.err
    for stages in ("[0,0.6,0.4]", "[]"):
        assert train(data, f"run{stages}", 2, f"train.stages={stages}").code == 0


def test_weights_of_lpips_change_the_loss_and_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    positive = {name: value.abs() if "lin" in name else value for name, value in LPIPS().state_dict().items()}
    save_file(positive, tmp_path / "lpips.safetensors")
    data = scenes_file(tmp_path / "larger.h5", 3, size=(2, 3, 64, 64))
    settings = ["data.out_steps=2", "train.log_every=1"]
    monkeypatch.chdir(tmp_path)
    for name, weights in (("with", "lpips.safetensors"), ("without", "")):
        result = train(data, str(tmp_path / name), 2, *settings, f"scene.lpips={weights}")
        assert result.code == 0, result.err
    first = [lines_of(str(tmp_path / name))[0]["photometric"] for name in ("with", "without")]
    assert first[0] != first[1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pdr("train", "--resume", "-o", tmp_path / "with", "--steps", "3")
    assert again.code == 0, again.err
    done = pdr("evaluate", data, "-m", tmp_path / "with", "--json", "--lpips-weights", tmp_path / "lpips.safetensors")
    assert done.code == 0, done.err
    scores = json.loads(done.out)["scores"]
    assert scores["model"]["lpips"] > 0
    assert scores["copy"]["lpips"] > 0


def test_lpips_that_cannot_be_a_loss_is_refused(scenes: Path, tmp_path: Path) -> None:
    for stages, side in ((STAGES, 8), ("train.stages=[]", 16)):
        result = train(scenes, "run", 2, "scene.lpips=weights.safetensors", stages)
        assert (result.code, f"draws pictures with a side of {side} pixels" in result.last) == (78, True), result.err
    data = scenes_file(tmp_path / "larger.h5", 3, size=(2, 5, 64, 64))
    result = train(data, "run", 2, "scene.lpips=nowhere.safetensors")
    assert (result.code, "no such file" in result.last) == (66, True), result.err
    assert not Path("run").exists()


def test_a_file_behind_a_url_is_to_be_downloaded() -> None:
    result = pdr("train", "--preset", "scenes-small", "--data", "https://example.org/scenes.h5", "-o", "run")
    assert (result.code, "download it" in result.last) == (65, True), result.err


def test_other_files_are_no_scenes(tmp_path: Path) -> None:
    result = train(weather_file(tmp_path / "a.nc"), "run", 2)
    assert (result.code, "a.nc" in result.last) == (65, True), result.err


def test_inspect_and_verify_know_such_a_model_and_what_cannot_use_it_says_so(scenes: Path, tmp_path: Path) -> None:
    assert train(scenes, "run", 2, more=["-q"]).code == 0
    described = pdr("inspect", "run", "--json")
    assert described.code == 0, described.err
    assert json.loads(described.out)["seen"] == "36 scenes"
    verified = pdr("verify", "run")
    assert verified.code == 0, verified.err
    assert "hash and structure are right" in verified.out
    weather = weather_file(tmp_path / "a.nc")
    for command in (["predict", weather, "-o", "f.nc"], ["evaluate", weather], ["export", "-o", "m.onnx"]):
        result = pdr(*command, "-m", "run")
        assert (result.code, "run/model.safetensors is a model of moving scenes" in result.last) == (2, True), (
            result.err
        )
        assert len(result.last) < 200


def test_a_model_of_scenes_is_loaded_as_it_was_saved_and_no_other_is(scenes: Path, weather_run: Path) -> None:
    assert train(scenes, "run", 2, more=["-q"]).code == 0
    loaded = load(Path("run/model.safetensors"), "cpu")
    saved = loaded.network.state_dict()
    assert not loaded.network.training
    assert all(saved[name].equal(value) for name, value in loaded.file.weights.items())
    with pytest.raises(UsageError, match="is a model of weather; expected one of moving scenes in space"):
        load(weather_run / "model.safetensors", "cpu")
