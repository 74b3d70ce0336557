"""Trainings that are killed, or lose a rank, and are continued: the model is that of an uninterrupted run, to the bit."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.builders import weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings
from tests.torchrun import assert_same, halved, lines_of_errors, reached, started, workers

STEPS = 24  # two epochs
SETTINGS = ["train.ema=0.9", "train.precision=bf16", "train.val_every=5", "train.clip_norm=0.5", "model.drop_path=0.2"]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of two steps, in which the batches of 8 windows are halved: `copy` it and continue it."""
    data = weather_file(tmp_path / "air.nc", 150, size=(9, 11))
    arguments = ["--preset", "demo", "--data", data, "-o", "begun", "--steps", "2", "-q", *tiny_settings(*SETTINGS)]
    assert pdr("train", *arguments).code == 0
    halved("begun", 2)
    return tmp_path / "begun"


def continued(run: str, ranks: int, **environment: str) -> subprocess.Popen[str]:
    options = ["--steps", str(STEPS), "--save-every", "2", "-q"]
    return started(["train", "--resume", "-o", run, *options], ranks, **environment)


def finished(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def kill_all(process: subprocess.Popen[str], ranks: int) -> None:
    """End everything by SIGKILL, as the kernel or a power cut does."""
    for number in [process.pid, *(workers(process) if ranks and process.poll() is None else [])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_run_that_is_killed_at_random_steps_is_continued_to_the_bit(begun: Path, ranks: int) -> None:
    shutil.copytree(begun, "whole")
    finished(continued("whole", ranks))
    seed = int.from_bytes(os.urandom(4), "little")
    chosen = random.Random(seed)
    for number in range(2):
        run = f"part-{number}"
        shutil.copytree(begun, run)
        for step in sorted(chosen.sample(range(3, STEPS), 2)):
            process = continued(run, ranks)
            reached(process, run, step)
            time.sleep(chosen.uniform(0, 0.05))
            kill_all(process, ranks)
        finished(continued(run, ranks))
        try:
            assert_same("whole", run, STEPS)
        except AssertionError as error:
            raise AssertionError(f"with seed {seed}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("lost", [signal.SIGKILL, signal.SIGSTOP])
def test_where_the_first_rank_is_lost_another_one_logs_it(begun: Path, lost: signal.Signals) -> None:
    shutil.copytree(begun, "part")
    process = continued("part", 2, PDR_RANK_TIMEOUT="5")
    assert reached(process, "part", 9)
    first = workers(process)[0]
    os.kill(first, lost)
    if lost == signal.SIGSTOP:
        time.sleep(12)  # the second has waited for 5 s for an answer, and 2 s for the first to log it
        os.kill(first, signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    lines = lines_of_errors(err)
    assert len(lines) == 1, err
    assert lines[0].endswith("continue with --resume -o part, from the last saved state [E_LOST_PROCESS, exit 75]")


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "the second rank"])
def test_a_signal_ends_all_ranks_at_one_step_and_saves_it(begun: Path, whom: str) -> None:
    shutil.copytree(begun, "whole")
    shutil.copytree(begun, "part")
    finished(continued("whole", 2))
    process = continued("part", 2)
    assert reached(process, "part", 7)
    os.kill(process.pid if whom == "torchrun" else workers(process)[1], signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    lines = lines_of_errors(err)
    assert [line.split(";")[1] for line in lines] == [" state saved"], err
    assert lines[0].startswith("error: SIGTERM at step ")
    assert lines[0].endswith("[E_INTERRUPTED, exit 143]")
    finished(continued("part", 0 if whom == "torchrun" else 2))
    if whom == "the second rank":
        assert_same("whole", "part", STEPS)
