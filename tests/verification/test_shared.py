"""An evaluation shared over processes: every number is that of one process."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pdr_cli.data import formats
from pdr_cli.system.processes import Processes
from pdr_cli.verification import evaluation, sources
from pdr_cli.verification.evaluation import Options
from pdr_cli.verification.sources import Reading
from tests.cli import pdr
from tests.torchrun import done


def numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without what differs between two runs of one command."""
    card = {key: value for key, value in document["card"].items() if key not in ("command", "date", "seconds")}
    return {**document, "card": card}


def test_processes_that_share_forecasts_score_as_one_does(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(["mse", "acc", "ssim", "spectra"], by=["season"], events=["t2m>280"])
    reading = Reading(device="cpu")

    def task() -> Any:
        return sources.task_of(formats.find_inputs([str(weather)]), [str(weather_run)], reading, split="all")

    alone = evaluation.evaluate(task(), options)
    # 153 windows are 10 batches of 16, so that of 3 processes two have nothing to do at the end.
    # They run by turns, each until it waits for the others: the library that reads the file is not made for threads.
    size, here, turn = 3, threading.local(), threading.Lock()
    barrier, told, forecast, found = threading.Barrier(size, timeout=60), [None] * size, [0] * size, [None] * size
    made = evaluation._Scoring.forecast

    def wait() -> None:
        turn.release()
        try:
            barrier.wait()
        finally:
            turn.acquire()

    def gather(self: Processes, value: Any) -> list[Any]:
        told[self.rank] = value
        wait()
        every = list(told)
        wait()
        return every

    def counted(self: Any, which: Any) -> Any:
        forecast[here.rank] += 1
        return made(self, which)

    def run(rank: int) -> None:
        here.rank = rank
        with turn:
            found[rank] = evaluation.shared(task(), options, Processes(rank, size))

    monkeypatch.setattr(Processes, "_gather", gather)
    monkeypatch.setattr(
        Processes, "to_first", lambda self, value: gather(self, value) if self.first else gather(self, value)[:0]
    )
    monkeypatch.setattr(evaluation._Scoring, "forecast", counted)
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert forecast == [4, 3, 3]
    assert found[1:] == [[], []]
    assert numbers(found[0][0].document.to_json()) == numbers(alone.document.to_json())
    assert found[0][0].by_window.tobytes() == alone.by_window.tobytes()


@pytest.mark.slow
def test_torchrun_evaluates_as_one_process(weather: Path, weather_run: Path) -> None:
    arguments = ["evaluate", weather, "-m", weather_run, "--split", "all", "-q", "-o"]
    one = pdr(*arguments, "one.json")
    code, out, err = done([*arguments, "two.json"])
    assert (one.code, code, out) == (0, 0, one.out), err
    assert numbers(json.loads(Path("two.json").read_text())) == numbers(json.loads(Path("one.json").read_text()))


@pytest.mark.slow
def test_what_no_process_can_evaluate_is_logged_by_one(weather: Path, weather_run: Path) -> None:
    code, _, err = done(["evaluate", weather, "-m", weather_run, "--metrics", "nothing"])
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (1, 1), err
    assert "E_USAGE, exit 2" in lines[0] or "E_CONFIG, exit 78" in lines[0]
