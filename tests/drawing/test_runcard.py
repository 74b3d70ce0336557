"""The card of a run: its numbers are those of the run, and a model hub can read its metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdr_cli.commands import train
from pdr_cli.drawing import runcard
from pdr_cli.errors import InputNotFoundError
from pdr_cli.runs import modelfile
from tests.cli import pdr
from tests.conftest import CALIBRATED


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path], weather: Path) -> Path:
    settings = ["card_windows=7", "baselines=true", "val_windows=40", "fusion=none"]
    return make_run(weather, *(part for setting in settings for part in ("--set", setting)))


def parts(run: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text."""
    head, text = re.fullmatch(r"---\n(.*?)---\n(.*)", (run / "README.md").read_text(), re.DOTALL).groups()  # type: ignore[union-attr]
    return yaml.safe_load(head), text


def test_it_says_what_the_model_has_learned_from(run: Path, weather: Path) -> None:
    metadata, text = parts(run)
    card = modelfile.read_header(run / "model.safetensors").card
    assert metadata["library_name"] == "pdr-cli"
    assert f"`{weather.name}`, SHA-256 `{card.data[0]['sha256']}`" in text
    assert "t2m [K] on a grid of 13 × 15 cells" in text
    assert str(card.training["split"]) in text


def test_its_scores_are_those_of_evaluate_on_its_windows(run: Path, weather: Path) -> None:
    metadata, text = parts(run)
    (result,) = metadata["model-index"][0]["results"]
    value = {metric["type"]: metric["value"] for metric in result["metrics"]}["rmse"]
    assert "On 7 windows of test data" in text
    row = re.search(r"^\| run \| \*?\*?([\d.]+)", text, re.MULTILINE)
    assert row is not None
    assert float(row[1]) == pytest.approx(value, rel=5e-3)
    for rival in ("persistence", "climatology", "ridge"):
        assert re.search(rf"^\| {rival} \|", text, re.MULTILINE), rival
    whole = pdr("evaluate", weather, "-m", run, "--json")
    assert whole.code == 0, whole.err
    assert value == pytest.approx(json.loads(whole.out)["scores"]["run"]["rmse"]["overall"], rel=0.2), "of more windows"


def test_a_calibration_renews_the_hash(run: Path, weather: Path) -> None:
    before = modelfile.read_header(run / "model.safetensors").sha256
    assert before in parts(run)[1]
    done = pdr("calibrate", run, weather)
    assert done.code == 0, done.err
    after = modelfile.read_header(run / "model.safetensors").sha256
    assert after != before
    assert after in parts(run)[1]
    assert before not in parts(run)[1]


def test_a_run_without_test_data_says_why_it_has_no_scores(make_run: Callable[..., Path], weather: Path) -> None:
    run = make_run(weather, "--set", "test_fraction=0", "--set", "card_windows=7")
    metadata, text = parts(run)
    assert "model-index" not in metadata
    assert "It could not be scored at the end of its training" in text


def test_a_card_of_the_owner_stays(run: Path, make_run: Callable[..., Path], weather: Path) -> None:
    other = make_run(weather)
    (other / "README.md").write_text("# My run\n")
    done = pdr("train", "--resume", "-o", other, "--steps", "4")
    assert done.code == 0, done.err
    assert (other / "README.md").read_text() == "# My run\n"
    assert "is not a card of pdr and stays" in done.err


def test_the_command_is_without_the_folders_of_its_author(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["train", "--data", "/home/me/secret/air.nc", "-o", "runs/a"]
    assert runcard._command(typed) == "pdr train --data air.nc -o runs/a"
    assert runcard._command(["evaluate"]) == ""


def test_data_that_are_gone_do_not_fail_a_training(
    make_run: Callable[..., Path], weather: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(config: object) -> None:
        raise InputNotFoundError("no file air.nc")

    monkeypatch.setattr(train, "find_files", gone)
    run = make_run(weather, "--set", "card_windows=7")
    assert "It could not be scored at the end of its training: no file air.nc" in parts(run)[1]


def test_a_calibration_leaves_a_readme_of_others_as_it_is(make_run: Callable[..., Path], weather: Path) -> None:
    run = make_run(weather, *CALIBRATED)
    theirs = b"Temp\xe9rature " + modelfile.read_header(run / "model.safetensors").sha256.encode()  # Latin-1
    (run / "README.md").write_bytes(theirs)
    done = pdr("calibrate", run, weather)
    assert done.code == 0, done.err
    assert (run / "README.md").read_bytes() == theirs
