"""Schedules against the public toolbox's traces."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pdr_cli.errors import ConfigError
from pdr_cli.training.schedule import beta1, learning_rate, progress_at


@pytest.mark.shared
@pytest.mark.parametrize(
    ("trace", "base_lr"), [("onecycle_lr1e-3_total500", 1e-3), ("onecycle_adamw_wd1e-2_lr5e-3_total300", 5e-3)]
)
def test_onecycle_follows_the_toolbox_step_by_step(shared: Path, trace: str, base_lr: float) -> None:
    golden = json.loads((shared / "golden" / "schedules_golden.json").read_text())[trace]
    epochs = golden["total_steps"] // 50
    for step, lr, first_beta, *_ in golden["rows"]:
        progress = progress_at("onecycle", step, steps_per_epoch=50, epochs=epochs)
        assert learning_rate("onecycle", base_lr, progress=progress, warmup=0.0) == pytest.approx(lr, rel=1e-6)
        assert beta1("onecycle", progress) == pytest.approx(first_beta, rel=1e-6)


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
            progress = progress_at("cosine", step, steps_per_epoch=7, epochs=50)
            found = learning_rate("cosine", base_lr, progress=progress, warmup=warmup_epochs / 50)
            assert found == pytest.approx(lr, rel=1e-6)
        assert beta1("cosine", progress) == first_beta


def test_onecycle_spans_zero_to_one_with_its_summit_at_thirty_per_cent() -> None:
    progress = [progress_at("onecycle", step, steps_per_epoch=20, epochs=5) for step in range(100)]
    assert (progress[0], progress[29], progress[99]) == (0, pytest.approx(0.3), 1)
    assert progress == sorted(progress)
    rates = [learning_rate("onecycle", 1.0, progress=p, warmup=0.0) for p in progress]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == pytest.approx(1)
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10])
def test_onecycle_of_a_tiny_run_stays_in_range(total: int) -> None:
    for step in range(total):
        progress = progress_at("onecycle", step, steps_per_epoch=total, epochs=1)
        assert 0 <= progress <= 1
        assert 0 < learning_rate("onecycle", 1.0, progress=progress, warmup=0.0) <= 1


def test_constant_warms_up_and_stays() -> None:
    rates = [learning_rate("constant", 1e-3, progress=p, warmup=0.2) for p in (0.0, 0.1, 0.2, 1.0)]
    assert rates == pytest.approx([1e-5, (1e-5 + 1e-3) / 2, 1e-3, 1e-3])
    assert progress_at("constant", 30, steps_per_epoch=20, epochs=5) == 0.3
    assert beta1("constant", 0.3) == 0.9


def test_cosine_is_half_way_in_the_middle_and_ends_at_its_floor() -> None:
    assert learning_rate("cosine", 1e-3, progress=0.5, warmup=0.0) == pytest.approx((1e-3 + 1e-6) / 2)
    assert math.isclose(learning_rate("cosine", 1e-3, progress=1.0, warmup=0.0), 1e-6, rel_tol=1e-9)


def test_misspelt_schedule_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        learning_rate("cosin", 1e-3, progress=0.5, warmup=0.0)
