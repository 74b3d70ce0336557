"""The ablation of moving Gaussians, end to end on a small clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdr_cli import config
from pdr_cli.ablation import catalogue
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Frames
from tests.cli import pdr

SMALL = ["data.size=[16,24]", "data.in_steps=3", "data.out_steps=3", "val_windows=8", "conv_width=6", "conv_depth=1"]


def test_every_variant_can_be_built_and_controls_have_the_size_of_what_they_control() -> None:
    base = config.load("video-deform")
    sizes = {}
    for variant in catalogue.moving().variants:
        tables = {
            t: {k.split(".")[1]: v for k, v in variant.settings.items() if k.startswith(t)} for t in ("model", "train")
        }
        options = base.model.model_copy(update=tables["model"])
        network = registry.build(options, Frames(10, 1, (32, 32), out_steps=10))
        sizes[variant.name] = sum(p.numel() for p in network.parameters())
    assert sizes["carry"] == sizes["carry, without Gaussians"] == sizes["carry, in stages"]
    assert sizes["anchor or predictor alone"] == 0


def test_ways_are_columns_of_the_table(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = catalogue.moving()
    chosen = [v for v in every.variants if v.name in ("carry", "carry, without Gaussians", "paint, without Gaussians")]
    monkeypatch.setattr(catalogue, "moving", lambda: catalogue.Ablation(every.about, tuple(chosen)))
    settings = [part for one in SMALL for part in ("--set", one)]
    result = pdr(
        "train", "--preset", "video-deform", "--data", clip, "--ablation", "moving", "--steps", 2, "-o", "a", *settings
    )
    assert result.code == 0, result.err
    made = json.loads(Path("a/ablation.json").read_text())["results"]
    ways = "ways, share of standing still"
    assert made["carry"]["42"]["test"][ways] > 0
    assert 0 <= made["carry"]["42"]["test"]["pruned"] < 1
    assert made["carry, without Gaussians"]["42"]["test"][ways] > 0
    assert ways not in made["paint, without Gaussians"]["42"]["test"]
    assert ways in Path("a/ablation.md").read_text()
