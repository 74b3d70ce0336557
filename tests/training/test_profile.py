"""Where the time of a step goes: parts within parts, and the command that prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pdr_cli.training import profile
from pdr_cli.training.profile import REST, Meter
from tests.cli import pdr


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [0.0]
    monkeypatch.setattr(profile.time, "process_time", lambda: now[0])
    monkeypatch.setattr(profile.time, "perf_counter", lambda: 2 * now[0])
    return now


def test_each_second_counts_for_the_innermost_part_alone(clock: list[float]) -> None:
    meter = Meter(torch.device("cpu"))
    clock[0] = 1
    with meter.of("outer"):
        clock[0] = 3
        with meter.of("inner"):
            clock[0] = 7
        clock[0] = 8
    clock[0] = 8.5
    meter.begin("last")
    assert {part: spent.cpu for part, spent in meter.spent.items()} == {REST: 1.5, "outer": 3, "inner": 4}
    assert {part: spent.wall for part, spent in meter.spent.items()} == {REST: 3, "outer": 6, "inner": 8}
    meter.end("never begun")
    meter.restart()
    assert meter.spent == {}


def test_calls_of_a_module_are_timed_and_training_is_too_until_the_hooks_are_removed(clock: list[float]) -> None:
    class Slow(nn.Module):
        def forward(self, seconds: float) -> None:
            clock[0] += seconds

        def training_forward(self, seconds: float) -> None:
            clock[0] += 10 * seconds

    meter, module = Meter(torch.device("cpu")), Slow()
    hooks = profile._hooked("slow", module, meter)
    module(1.0)
    module.training_forward(1.0)
    assert meter.spent["slow"].cpu == 11
    for hook in hooks:
        hook.remove()
    module(1.0)
    module.training_forward(1.0)
    assert meter.spent["slow"].cpu == 11


def test_a_profile_names_the_parts_of_a_step_and_leaves_nothing_behind(weather: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    result = pdr("train", "--preset", "weather-deform", "--data", weather, "--profile", "--set", "train.batch=2")
    assert result.code == 0, result.err
    shown = [line.split("│")[1].strip() for line in result.out.splitlines() if line.startswith("│")]
    assert {"data", "predictor", "adapter", "fusion", "loss", "backward", "optimiser", "rest"} <= set(shown)
    shares = [float(line.split("│")[3].strip(" %")) for line in result.out.splitlines() if line.startswith("│")]
    assert sum(shares[:-1]) == pytest.approx(100, abs=1)
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / "runs"}
    assert pdr("train", "--preset", "weather-small", "--data", weather, "--profile", "--dry-run").code == 2
