"""What loggers record of a training beside metrics.jsonl, and that none can end it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pdr_cli.families import imported
from tests.builders import weather_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings

pytest.importorskip("tensorboard")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return weather_file(tmp_path / "air.nc")


def train(data: Path, *more: str, steps: int = 6) -> Result:
    arguments = ["--preset", "demo", "--data", data, "-o", "run", "--steps", str(steps), "--set", "log_every=1"]
    return pdr("train", *arguments, *tiny_settings(), *more)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]


def events() -> dict[str, dict[int, float]]:
    """{scalar: {step: value}} as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator("run/tensorboard", size_guidance={"scalars": 0}).Reload()
    return {tag: {event.step: event.value for event in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def test_tensorboard_has_every_number_of_metrics_jsonl(data: Path) -> None:
    done = train(data, "--logger", "tensorboard")
    assert done.code == 0, done.err
    shown = events()
    for line in lines():
        event, step = line.pop("event"), line.pop("step")
        for name, value in line.items():
            if not isinstance(value, list):
                assert shown[f"{event}/{name}"][step] == pytest.approx(value, rel=1e-6), (event, name)
    assert set(shown["step/loss"]) == set(range(1, 7))
    assert shown["validation/rmse"], "of one channel"


def test_a_resumed_training_continues_the_curve(data: Path) -> None:
    assert train(data, "--logger", "tensorboard", steps=4).code == 0
    before = events()["step/loss"]
    done = pdr("train", "--resume", "-o", "run", "--steps", "6")
    assert done.code == 0, done.err
    after = events()["step/loss"]
    assert set(after) == set(range(1, 7))
    assert {step: after[step] for step in before} == before
    assert after[6] == pytest.approx(next(line["loss"] for line in lines() if line["step"] == 6), rel=1e-6)


def test_a_logger_that_fails_is_left_out_and_the_training_goes_on(data: Path, tmp_path: Path) -> None:
    source = (
        "class Frail:\n    def __init__(self, folder, step): self.lines = 0\n    def close(self): print('closed')\n"
    )
    source += "    def log(self, event, step, values):\n        self.lines += 1\n        print('line', self.lines)\n"
    source += "        if self.lines == 2: raise OSError('the server is away')\n"
    (tmp_path / "frail.py").write_text(source)
    done = train(data, "--logger", "frail:Frail", "--logger", "tensorboard")
    sys.modules.pop("frail", None)
    assert done.code == 0, done.err
    assert "logger frail:Frail failed and is left out: OSError: the server is away" in done.err
    assert done.out.count("line") == 2
    assert "closed" not in done.out
    assert set(events()["step/loss"]) == set(range(1, 7)), "the other one records all"


def test_a_name_that_nothing_has_ends_before_the_training(data: Path) -> None:
    done = train(data, "--logger", "tensorbord")
    assert done.code == 78
    assert "--logger tensorbord is not known. Did you mean 'tensorboard'" in done.err
    assert not Path("run/metrics.jsonl").exists()


def test_a_missing_package_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "pdr_cli.training.tensorboard", raising=False)
    imported.cache_clear()
    done = train(data, "--logger", "tensorboard")
    assert done.code == 2
    assert "pip install 'pdr-cli[tensorboard]'" in done.err
