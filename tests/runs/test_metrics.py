"""The log of a run."""

from __future__ import annotations

import json
from pathlib import Path

from pdr_cli.runs import metrics
from pdr_cli.runs.folder import RunFolder


def test_resumed_log_ends_at_the_step_of_the_state(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        metrics.append(run, "step", step=step, loss=0.5)
    metrics.append(run, "finished", step=3)
    with run.metrics.open("a") as stream:
        stream.write('{"event": "st')  # cut by a crash
    metrics.keep_until(run, 2)
    kept = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert kept == [{"event": "step", "step": 1, "loss": 0.5}, {"event": "step", "step": 2, "loss": 0.5}]


def test_run_without_a_log_gets_an_empty_one(tmp_path: Path) -> None:
    metrics.keep_until(RunFolder(tmp_path), 5)
    assert RunFolder(tmp_path).metrics.read_text() == ""
