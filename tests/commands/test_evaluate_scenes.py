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
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """12 scenes of 3 frames of 16 x 16, and a model of two steps."""
    monkeypatch.setattr(pictures, "curves", lambda path, metrics: None)
    data, run = scenes_file(tmp_path / "scenes.h5", 12, size=(2, 3, 16, 16)), tmp_path / "run"
    options = [word for setting in (*TINY, *ORACLE, "data.out_steps=2") for word in ("--set", setting)]
    done = pdr("train", "--preset", "scenes-small", "--data", data, "-o", run, "--steps", "2", *options)
    assert done.code == 0, done.err
    return data, run


def test_a_model_stands_beside_its_still_set_and_the_picture(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    done = pdr("evaluate", data, "-m", run, "--json", "-o", tmp_path / "x.json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "x.json").read_text())
    assert list(found["scores"]) == ["model", "static", "copy"]
    assert found["scores"]["static"]["psnr"] > 5
    assert found["scores"]["copy"]["depth_absrel"] is None
    table = pdr("evaluate", data, "-m", run)
    assert table.code == 0
    assert "static" in table.out


def test_options_that_scenes_do_not_have_are_refused(trained: tuple[Path, Path]) -> None:
    data, run = trained
    for option in (["--metrics", "rmse"], ["--steps", "1"], ["--split", "all"], ["--members", "2"]):
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


def test_epe_is_of_moving_pixels_at_the_last_frame() -> None:
    track, moving = torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    track[0, 1, 0, 0, 0], moving[0, 0, 0] = 3, True
    truth = Truth(torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 4, 4), track, moving)
    assert scores.epe(torch.zeros(1, 32, 3), truth) == pytest.approx(3)
