"""Stages of a training with moving Gaussians, and the weights of their loss terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pdr_cli import config
from pdr_cli.errors import ConfigError
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.training import stages
from pdr_cli.training.batches import WeightedBatch
from tests.builders import video_file
from tests.cli import pdr
from tests.models.builders import options

SHARES = [0.4, 0.4, 0.2]


def batch() -> WeightedBatch:
    x, y = torch.rand(2, 3, 1, 9, 12), torch.rand(2, 4, 1, 9, 12)
    known = torch.ones(2, 7, 1, 9, 12, dtype=torch.bool)
    known[0, 5, 0, 2, 2] = False
    flow = torch.full((2, 2, 9, 12), 3.0)
    weight = known[:, 3:].float()
    return WeightedBatch(Batch(x, 4, y, known, flow=flow), weight, np.arange(2))


@pytest.mark.parametrize(
    ("progress", "still", "size"),
    [(0.0, True, (4, 6)), (0.39, True, (4, 6)), (0.4, True, (9, 12)), (0.79, True, (9, 12)), (0.8, False, (9, 12))],
)
def test_stages_follow_the_shares(progress: float, still: bool, size: tuple[int, int]) -> None:
    made = stages.of(batch(), SHARES, progress)
    assert (made.inputs.still, tuple(made.inputs.observed.shape[-2:])) == (still, size)


def test_without_stages_nothing_changes() -> None:
    given = batch()
    assert stages.of(given, [], 0.0) is given


def test_half_the_grid_has_means_of_four_cells_of_which_all_are_known() -> None:
    given = batch()
    made = stages.pooled(given)
    torch.testing.assert_close(made.inputs.observed[0, 0, 0, 1, 2], given.inputs.observed[0, 0, 0, 2:4, 4:6].mean())
    assert made.inputs.known is not None
    assert made.weight is not None
    assert not made.inputs.known[0, 5, 0, 1, 1]
    assert made.inputs.known.sum() == made.inputs.known.numel() - 1
    assert float(made.weight[0, 2, 0, 1, 1]) == 0.75
    # 3 cells are 1.5 cells of twice their size.
    assert made.inputs.flow is not None
    assert made.inputs.flow.unique().tolist() == [1.5]


@pytest.mark.parametrize("key", ["motion_weight=1", "opacity_weight=1", "stages=[0.4,0.4,0.2]"])
def test_only_moving_gaussians_have_ways_and_stages(key: str) -> None:
    chosen = config.load("video-small", [f"train.{key}"]).train
    network = registry.build(options(adapter="local"), Frames(2, 1, (16, 16)))
    with pytest.raises(ConfigError, match=f"train.{key.partition('=')[0]}.*--adapter deform"):
        stages.check(network, chosen, Frames(2, 1, (16, 16)))


def test_a_network_of_one_size_begins_on_whole_frames() -> None:
    frames = Frames(2, 1, (16, 16))
    network = registry.build(options(adapter="deform", backbone="mlpmixer"), frames)
    with pytest.raises(ConfigError, match="one size"):
        stages.check(network, config.load("video-deform", ["train.stages=[0.4,0.4,0.2]"]).train, frames)
    stages.check(network, config.load("video-deform", ["train.stages=[0,0.6,0.4]"]).train, frames)


@pytest.mark.parametrize("given", ["[0.5,0.5]", "[0.5,0.6,0.2]", "[-0.2,1,0.2]"])
def test_shares_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="three shares"):
        config.load("video-deform", [f"train.stages={given}"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_file(tmp_path_factory.mktemp("clips") / "clip.mp4", 120, size=(16, 24))


def trained(clip: Path, out: str, *arguments: Any) -> list[dict[str, Any]]:
    """The lines of the metrics of a small training."""
    small = [
        "--set",
        "data.size=[16,24]",
        "--set",
        "data.in_steps=3",
        "--set",
        "data.out_steps=3",
        "--set",
        "log_every=1",
    ]
    result = pdr(
        "train", "--preset", "video-deform", "--data", clip, "-o", out, "--backbone", "none", *small, *arguments
    )
    assert result.code == 0, result.err
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_goes_through_its_stages(clip: Path) -> None:
    staged = ["--set", "stages=[0.4,0.4,0.2]"]
    whole = [line for line in trained(clip, "whole", "--steps", 5, *staged) if line["event"] == "step"]
    assert ["motion" in line for line in whole] == [False] * 4 + [True]
    assert all(line["opacity"] > 0 for line in whole)


def test_the_weight_of_the_ways_changes_the_training_and_not_the_loss_that_is_logged(clip: Path) -> None:
    free, bound = (trained(clip, n, "--steps", 2, "--set", f"motion_weight={w}") for n, w in (("a", 0), ("b", 5)))
    first, second = ([line for line in lines if line["event"] == "step"] for lines in (free, bound))
    assert first[0]["loss"] == second[0]["loss"]
    assert first[1]["loss"] != second[1]["loss"]
    assert "motion" not in first[0]
