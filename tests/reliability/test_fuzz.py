"""Files that are damaged at random end in an error that names them, or are read: no crash, no hang, no wrong numbers.

`make fuzz` goes on for FUZZ_SECONDS from FUZZ_SEED, and keeps each file that something is wrong with.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.reliability import fuzz
from tests.reliability.fuzz import Subject, Worker
from tests.reliability.fuzz_subjects import SUBJECTS

CASES = 12  # of each subject, in the default suite
SEED = int(os.environ.get("FUZZ_SEED", "0"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, weather_run: Path) -> dict[str, Path]:
    """A good file of each kind."""
    root = tmp_path_factory.mktemp("good")
    made = {}
    for name, subject in SUBJECTS.items():
        folder = root / name
        shutil.copytree(weather_run, folder / "run")
        made[name] = subject.make(folder / "good")
    return made


@pytest.fixture(scope="module")
def reader() -> Iterator[Worker]:
    with fuzz.worker() as made:
        yield made


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_changed_file_is_refused_or_read(name: str, good: dict[str, Path], reader: Worker, tmp_path: Path) -> None:
    cases = iter(range(CASES))
    outcome = fuzz.fuzz(name, SUBJECTS[name], good[name], cases, tmp_path / "cases", reader, tmp_path / "kept")
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.ends.total() == CASES


@pytest.mark.fuzz
def test_changed_files_for_as_long_as_asked(good: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "600"))
    kept = Path(os.environ.get("FUZZ_KEPT", tmp_path_factory.mktemp("kept")))
    only = os.environ.get("FUZZ_ONLY", "").split(",")
    subjects = {n: s for n, s in SUBJECTS.items() if n in only or only == [""]}
    outcomes = {name: fuzz.Outcome() for name in subjects}
    print(f"\nFUZZ_SEED={SEED}", file=sys.__stdout__)
    with fuzz.worker() as using:
        for start in itertools.count(SEED, 20):
            for name, subject in subjects.items():
                if time.monotonic() > until:
                    break
                folder = tmp_path_factory.mktemp("cases")
                found = fuzz.fuzz(name, subject, good[name], iter(range(start, start + 20)), folder, using, kept)
                outcomes[name].ends += found.ends
                outcomes[name].faults += found.faults
                for fault in found.faults:
                    print(fault, file=sys.__stdout__, flush=True)
                shutil.rmtree(folder)
            if time.monotonic() > until:
                break
    fuzz.report(outcomes, sys.__stdout__)  # type: ignore[arg-type]
    faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
    assert not faults, "\n".join(faults)


# -- the machinery itself notices what it is there for


def _fails(_: Path) -> list[np.ndarray | str]:
    raise ValueError("no PdrError")


def test_an_exception_that_is_no_pdr_error_is_a_fault(tmp_path: Path) -> None:
    answer = fuzz.attempt(_fails, tmp_path)
    assert "ValueError is no PdrError" in str(fuzz.fault_of(Subject(lambda p: p, _fails), answer, ""))


def test_other_values_are_a_fault_where_there_are_checksums() -> None:
    answer = {"end": "read", "digest": "b", "seconds": 0.0}
    faults = [fuzz.fault_of(Subject(lambda p: p, _fails, checked), answer, "a") for checked in (True, False)]
    assert faults == ["other values than were written, unnoticed", None]


def test_a_worker_that_dies_is_a_fault_and_replaced(good: dict[str, Path], reader: Worker) -> None:
    assert reader.ask("preset", good["preset"])["end"] == "read"
    reader.kill()
    died = reader.ask("preset", good["preset"])
    assert fuzz.fault_of(SUBJECTS["preset"], died, "") == f"the process died with {-signal.SIGKILL}"
    assert reader.ask("preset", good["preset"])["end"] == "read"
