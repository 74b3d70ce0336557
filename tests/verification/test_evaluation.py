import json
import math
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.verification import sources, task
from pdr_cli.verification.document import Document
from pdr_cli.verification.evaluation import Options, Result, evaluate
from pdr_cli.verification.sources import Reading
from tests.cli import pdr


def document(headline: str, higher_is_better: list[str]) -> Document:
    """A document without forecasters."""
    about = ("K", ["t2m"], "standard", "honest", "test", 6, "6 clips", [1.0], "hours")
    return Document(*about, [headline], {}, higher_is_better, {}, {}, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ("rmse", {"best": 3, "median": 0, "worst": 1}),  # 1, 2, 4, 5, 9 and one that is not known
        ("psnr", {"best": 1, "median": 0, "worst": 3}),
    ],
)
def test_typical_windows_are_the_best_the_median_and_the_worst(headline: str, expected: dict[str, int]) -> None:
    by_window = np.array([4.0, 9.0, math.nan, 1.0, 2.0, 5.0])
    assert Result(document(headline, ["psnr"]), by_window).typical() == expected


def test_a_bias_is_best_where_it_is_smallest() -> None:
    assert Result(document("bias", []), np.array([-9.0, 0.5, 2.0])).typical() == {"best": 1, "median": 2, "worst": 0}


def test_without_a_known_score_there_are_none() -> None:
    assert Result(document("acc", ["acc"]), np.array([math.nan])).typical() == {}


def scored_by(run: Path, truth: Path, options: Options) -> Result:
    """The evaluation of a run, without the command."""
    reading = Reading(device="cpu")
    found = sources.find([str(run)], reading)
    series = sources.truth([truth], reading, found)
    return evaluate(task.build(found.models, {}, series), options)


def test_an_evaluation_of_objects_gives_the_document_of_the_command_and_prints_nothing(
    weather: Path, weather_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored_by(weather_run, weather, Options(["rmse", "spectra"], ["persistence"]))
    assert capsys.readouterr().out == ""
    arguments = ("--metrics", "rmse,spectra", "--against", "persistence", "--device", "cpu")
    printed = json.loads(pdr("evaluate", weather, "-m", weather_run, *arguments, "--json").out)
    changing = {"command": "", "date": "", "seconds": {}}
    assert found.document.to_json() | {"card": 0} == printed | {"card": 0}
    assert found.document.card.to_json() | changing == printed["card"] | changing
    assert found.by_window.shape == (printed["n_windows"],)


def test_defaults_follow_from_the_kind_of_data_and_the_convention(traffic: Path, traffic_run: Path) -> None:
    standard = scored_by(traffic_run, traffic, Options()).document
    assert (standard.metrics, standard.baselines) == (
        ["rmse", "mae", "bias"],
        ["persistence", "climatology", "anomaly", "ridge"],
    )
    published = scored_by(traffic_run, traffic, Options(convention="openstl", against=())).document
    assert (published.metrics, published.baselines) == (["mse", "mae", "ssim", "psnr"], [])
