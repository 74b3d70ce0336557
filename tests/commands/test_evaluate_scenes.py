"""`pdr evaluate` on scenes, as a user would type it, and its scores alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pdr_cli.drawing import pictures
from pdr_cli.models.scenes.losses import Truth
from pdr_cli.splat.compose import View
from pdr_cli.verification import scenes as scores
from tests.builders import scenes_file
from tests.cli import pdr
from tests.training.scenes.test_lesson import ORACLE, TINY


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 scenes of 3 frames of 16 x 16."""
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)
    return scenes_file(tmp_path / "scenes.h5", 12, size=(2, 3, 16, 16))


def train(data: Path, run: Path, steps: int, *settings: str) -> Path:
    options = [word for setting in (*TINY, "data.out_steps=2", *settings) for word in ("--set", setting)]
    done = pdr("train", "--preset", "scenes-small", "--data", data, "-o", run, "--steps", str(steps), *options)
    assert done.code == 0, done.err
    return run


@pytest.fixture
def trained(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Scenes, and a model of two steps."""
    return data, train(data, tmp_path / "run", 2, *ORACLE)


@pytest.fixture
def drawing(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Scenes, and a model of six steps that draws the latents of its videos."""
    return data, train(data, tmp_path / "drawing", 6)


def scored(data: Path, run: Path, *options: str) -> dict:
    done = pdr("evaluate", data, "-m", run, "--json", *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_model_stands_beside_its_still_set_and_the_picture(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    done = pdr("evaluate", data, "-m", run, "--json", "-o", tmp_path / "x.json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "x.json").read_text())
    assert list(found["scores"]) == ["model", "static", "copy", "truth"]
    assert found["scores"]["static"]["psnr"] > 5
    assert found["scores"]["copy"]["depth_absrel"] is None
    table = pdr("evaluate", data, "-m", run)
    assert table.code == 0
    assert "static" in table.out


def test_members_have_a_row_of_their_mean_and_one_of_the_best(drawing: tuple[Path, Path]) -> None:
    one, two, both = (scored(*drawing, "--members", m, "--seed", s) for m, s in (("1", "3"), ("1", "4"), ("2", "3")))
    assert (both["members"], both["seed"], both["latents"]) == (2, 3, "true")
    assert list(both["scores"]) == ["model", "static", "drawn", "best", "copy", "truth"]
    assert one["scores"]["drawn"] == one["scores"]["best"]
    assert one["scores"]["drawn"] != two["scores"]["drawn"], "another seed draws others"
    assert one["scores"]["model"] == both["scores"]["model"] != both["scores"]["drawn"]
    # The second of two members is the first of none, so the mean of both differs from the first, which is not better than the
    # best of both.
    assert both["scores"]["drawn"]["psnr"] != one["scores"]["drawn"]["psnr"] <= both["scores"]["best"]["psnr"]
    assert both["scores"]["drawn"]["psnr"] < both["scores"]["best"]["psnr"]
    assert both == scored(*drawing, "--members", "2", "--seed", "3")


def test_what_draws_nothing_says_why(trained: tuple[Path, Path], drawing: tuple[Path, Path]) -> None:
    done = pdr("evaluate", trained[0], "-m", trained[1], "--members", "2")
    assert (done.code, "scene.latents=oracle, which has no generator" in done.last) == (2, True), done.err
    done = pdr("evaluate", drawing[0], "-m", drawing[1], "--members", "mean:2")
    assert (done.code, "--members mean" in done.last) == (2, True), done.err


def test_options_that_scenes_do_not_have_are_refused(trained: tuple[Path, Path]) -> None:
    data, run = trained
    for option in (["--metrics", "rmse"], ["--steps", "1"], ["--split", "all"]):
        assert pdr("evaluate", data, "-m", run, *option).code == 2, option


def test_scenes_of_another_size_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    other = scenes_file(tmp_path / "other.h5", 3, size=(2, 4, 16, 16))
    done = pdr("evaluate", other, "-m", trained[1])
    assert done.code == 65
    assert "4 frames" in done.err


def test_the_true_frames_and_half_their_depth_have_perfect_scores() -> None:
    frames, depth = torch.rand(1, 2, 3, 16, 16), 1 + torch.rand(1, 2, 16, 16)
    truth = Truth(frames, depth, torch.zeros(1, 2, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool))
    row = scores.drawn(View(frames, depth / 2, torch.ones_like(depth)), truth)
    assert row["psnr"] == pytest.approx(100)
    assert row["depth_pearson"] == pytest.approx(1, abs=1e-4)
    assert row["depth_absrel"] == pytest.approx(0, abs=1e-5)
    assert scores.epe(torch.zeros(1, 256, 3), truth) is None


def test_relative_poses_stand_beside_those_of_the_true_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)
    data = scenes_file(tmp_path / "larger.h5", 3, size=(2, 9, 64, 64))
    found = scored(data, train(data, tmp_path / "larger", 2, *ORACLE, "data.out_steps=8"))["scores"]
    assert found["copy"]["rpe_t"] is found["truth"]["psnr"] is None
    # The sample's cameras turn by 1 to 2.5 degrees between frames, and go 0.07 to 0.18 units.
    assert found["truth"]["rpe_t"] < 0.05
    assert found["truth"]["rpe_r"] < 0.5
    # Gaussians that stand still are of one scene in all frames, though this one has hardly been trained.
    assert found["static"]["rpe_r"] < 1


def test_epe_is_of_moving_pixels_at_the_last_frame() -> None:
    track, moving = torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    track[0, 1, 0, 0, 0], moving[0, 0, 0] = 3, True
    truth = Truth(torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 4, 4), track, moving)
    assert scores.epe(torch.zeros(1, 32, 3), truth) == pytest.approx(3)
