"""Schedules against the public toolbox's traces."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pdr_cli.errors import ConfigError
from pdr_cli.training.schedule import build_schedule


@pytest.mark.shared
@pytest.mark.parametrize(
    ("trace", "base_lr"), [("onecycle_lr1e-3_total500", 1e-3), ("onecycle_adamw_wd1e-2_lr5e-3_total300", 5e-3)]
)
def test_onecycle_follows_the_toolbox_step_by_step(shared: Path, trace: str, base_lr: float) -> None:
    golden = json.loads((shared / "golden" / "schedules_golden.json").read_text())[trace]
    epochs = golden["total_steps"] // 50
    for step, lr, first_beta, *_ in golden["rows"]:
        progress = build_schedule("onecycle").progress(step, 50, epochs)
        assert build_schedule("onecycle").rate(base_lr, progress, 0.0) == pytest.approx(lr, rel=1e-6)
        assert build_schedule("onecycle").beta1(progress) == pytest.approx(first_beta, rel=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("trace", "base_lr", "warmup_epochs"),
    [("cosine_taxibj_lr5e-4_warm5_ep50", 5e-4, 5), ("cosine_weather_lr5e-3_warm0_ep50", 5e-3, 0)],
)
def test_cosine_follows_the_toolbox_epoch_by_epoch(
    shared: Path, trace: str, base_lr: float, warmup_epochs: int
) -> None:
    golden = json.loads((shared / "golden" / "schedules_golden.json").read_text())[trace]
    for epoch, lr, first_beta, *_ in golden["rows"]:
        for step in (7 * epoch, 7 * epoch + 6):  # the same within an epoch
            progress = build_schedule("cosine").progress(step, 7, 50)
            found = build_schedule("cosine").rate(base_lr, progress, warmup_epochs / 50)
            assert found == pytest.approx(lr, rel=1e-6)
        assert build_schedule("cosine").beta1(progress) == first_beta


def test_onecycle_spans_zero_to_one_with_its_summit_at_thirty_per_cent() -> None:
    progress = [build_schedule("onecycle").progress(step, 20, 5) for step in range(100)]
    assert (progress[0], progress[29], progress[99]) == (0, pytest.approx(0.3), 1)
    assert progress == sorted(progress)
    rates = [build_schedule("onecycle").rate(1.0, p, 0.0) for p in progress]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == pytest.approx(1)
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10])
def test_onecycle_of_a_tiny_run_stays_in_range(total: int) -> None:
    for step in range(total):
        progress = build_schedule("onecycle").progress(step, total, 1)
        assert 0 <= progress <= 1
        assert 0 < build_schedule("onecycle").rate(1.0, progress, 0.0) <= 1


def test_constant_warms_up_and_stays() -> None:
    rates = [build_schedule("constant").rate(1e-3, p, 0.2) for p in (0.0, 0.1, 0.2, 1.0)]
    assert rates == pytest.approx([1e-5, (1e-5 + 1e-3) / 2, 1e-3, 1e-3])
    assert build_schedule("constant").progress(30, 20, 5) == 0.3
    assert build_schedule("constant").beta1(0.3) == 0.9


def test_cosine_is_half_way_in_the_middle_and_ends_at_its_floor() -> None:
    assert build_schedule("cosine").rate(1e-3, 0.5, 0.0) == pytest.approx((1e-3 + 1e-6) / 2)
    assert math.isclose(build_schedule("cosine").rate(1e-3, 1.0, 0.0), 1e-6, rel_tol=1e-9)


def test_misspelt_schedule_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        build_schedule("cosin").rate(1e-3, 0.5, 0.0)
