import json
import math
from typing import Any

import pytest

from pdr_cli.verification.document import Card, Document, Skill
from pdr_cli.verification.sections import ByLead


def saved(**changes: object) -> dict[str, Any]:
    """A document as JSON holds it, with every section and two baselines."""
    two = {"overall": 2.0, "lead": [1.5, 2.5], "low": [1.4, 2.3], "high": [1.6, 2.7]}
    skill = {"lead": [0.5, 0.6], "interval": [0.5, 0.6], "significant": True, "low": [0.4, 0.5], "high": [0.6, 0.7]}
    names = ["pdr", "persistence", "climatology"]
    return {
        "units": "K", "variables": ["t2m"], "convention": "standard", "protocol": "honest", "split": "test",
        "n_windows": 204, "period": ["2013-11-09 00:00", "2013-12-31 18:00"], "lead": [6, 12], "lead_units": "hours",
        "metrics": ["rmse", "bias"], "metric_units": {"rmse": "K", "bias": "K", "mse": "K²"}, "higher_is_better": [],
        "kinds": {"pdr": "model", "persistence": "baseline", "climatology": "baseline"},
        "scores": {n: {"rmse": two, "bias": {"overall": None, "lead": [0.1, None]}} for n in names},
        "skill": {"pdr": {"persistence": {"overall": 0.55, **skill}, "climatology": {"overall": 0.89, **skill}}},
        "bootstrap": {"blocks": 26, "windows_per_block": 8, "resamples": 2000, "level": 0.95},
        "missing": {"cells": 5, "of": 100, "share": 0.05, "by": {"truth": 5}},
        "spectra": {
            "wavelength": [4.0, 2.0], "wavelength_units": "cells", "lead": 12, "power": {"truth": [2.0, 1.0], "pdr": None},
            "ratio": {"pdr": None}, "gradient": {"pdr": 0.9},
        },
        "calibration": {"pdr": {"forecast": [270.0, 280.0], "observed": [270.5, 279.0], "count": [5, 20]}},
        "concentration": {n: {"kurtosis": None, "saturation": 0.1, "diversity": 9.0, "p90": 0.6} for n in names},
        "warping": {
            "flow": "RAFT-small",
            "errors": {n: {"l1": 0.1, "l2": 0.2, "l1_visible": 0.1, "l2_visible": 0.2, "visible": 0.9} for n in names},
        },
        "card": {
            "command": "pdr evaluate air.nc", "pdr": "0.1.0", "torch": "2", "device": "cpu", "threads": 2, "date": "2020",
            "data": ["air.nc"],
            "models": {
                "pdr": {
                    "file": "m.safetensors", "sha256": "cd34", "preset": "demo", "backbone": "tau", "fusion": "add",
                    "parameters": 7,
                }
            },
            "files": {"theirs": {"file": "t.nc", "layout": "lead", "sha256": "ef"}},
            "truth_sha256": "ab12", "ssim": "Gaussian", "climatology": "", "seconds": {"total": 1.5},
        },
        "efficiency": {
            "pdr": {
                "parameters": 7, "flops": 4, "macs": 2, "renderer_flops": 1, "ms_p50": 1.0, "ms_p90": 2.0,
                "frames_per_second": 3.0, "sequences_per_second": 1.0, "sequences_per_second_batch_16": 9.0,
                "memory_mb": 1.0, "memory_of": "process", "grid": "1 x 2 x 3, 4 → 5",
            }
        },
        "best_baseline": "persistence",
    } | changes  # fmt: skip


def test_a_saved_document_is_read_back_as_it_was_written_key_by_key() -> None:
    # The texts are compared, so that the order of the keys counts.
    assert json.dumps(Document.from_json(saved()).to_json()) == json.dumps(saved())


def test_sections_that_were_not_computed_have_no_key_but_intervals_are_null() -> None:
    optional = ("spectra", "calibration", "concentration", "warping", "efficiency")
    written = Document.from_json({k: v for k, v in saved(bootstrap=None).items() if k not in optional}).to_json()
    assert not set(optional) & set(written)
    assert written["bootstrap"] is None
    assert ByLead(1.0, [1.0]).to_json() == {"overall": 1.0, "lead": [1.0]}


def test_what_is_not_defined_is_null_in_json_and_nan_in_the_document() -> None:
    entry = ByLead(math.nan, [math.inf, 2.0])
    assert entry.to_json() == {"overall": None, "lead": [None, 2.0]}
    back = ByLead.from_json(entry.to_json())
    assert math.isnan(back.overall)
    assert math.isnan(back.lead[0])


def scored(metric: str, higher_is_better: list[str], **overall: float | None) -> Document:
    """A document whose forecasters have these headline scores."""
    rows = {name: {metric: {"overall": value, "lead": []}} for name, value in overall.items()}
    return Document.from_json(saved(metrics=[metric], higher_is_better=higher_is_better, scores=rows))


def test_the_best_baseline_has_the_best_headline_score() -> None:
    assert scored("rmse", [], pdr=1.0, persistence=3.0, climatology=2.0).best_baseline == "climatology"
    assert scored("psnr", ["psnr"], pdr=40.0, persistence=32.0, climatology=20.0).best_baseline == "persistence"
    assert scored("bias", [], persistence=-0.5, climatology=0.2).best_baseline == "climatology"
    assert scored("rmse", [], persistence=None, climatology=2.0).best_baseline == "climatology"
    assert scored("rmse", [], pdr=1.0).best_baseline is None


def test_the_hardest_rival_is_the_best_baseline() -> None:
    document = scored("mae", [], pdr=1.0, persistence=3.0, climatology=2.0)
    assert document.hardest_rival("pdr") == "climatology"  # although the MSE skill against it is higher, 0.89
    assert document.champion == "pdr"
    assert document.baselines == ["persistence", "climatology"]


def test_without_headline_scores_the_hardest_rival_is_the_baseline_with_the_least_skill_against_it() -> None:
    document = scored("mae", [], pdr=1.0, persistence=None, climatology=None)
    assert document.hardest_rival("pdr") == "persistence"  # 0.55 against 0.89


@pytest.mark.parametrize(
    ("skill", "chance"),
    [
        (Skill(0.1, [], interval=[-0.1, 0.3], significant=False), True),
        (Skill(0.1, [], interval=[0.05, 0.3], significant=True), False),
        (Skill(0.1, [], interval=[-0.1, 0.3]), True),
        (Skill(0.1, []), False),  # not tested
    ],
)
def test_a_skill_may_be_chance_where_its_interval_holds_zero(skill: Skill, chance: bool) -> None:
    assert skill.insignificant is chance


def test_units_of_a_pure_number_are_left_out() -> None:
    document = Document.from_json(saved(metric_units={"rmse": "K", "ssim": "1"}))
    assert [document.units_of(k) for k in ("rmse:t2m", "ssim", "acc")] == ["K", "", ""]


def test_a_card_without_entries_is_empty() -> None:
    assert Card.from_json({}) == Card()
