"""Run `pdr` by torchrun in several processes, as a user would."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.training import state

REPOSITORY = Path(__file__).parents[1]


def started(arguments: Sequence[str | Path], ranks: int = 2, **environment: str) -> subprocess.Popen[str]:
    """`pdr arguments...` by torchrun in several processes, or with 0 ranks in one of its own."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    command = [sys.executable, *several, "-m", "pdr_cli", *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def done(arguments: Sequence[str | Path], ranks: int = 2, **environment: str) -> tuple[int, str, str]:
    """The exit code of torchrun, stdout and stderr."""
    process = started(arguments, ranks, **environment)
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def metrics(run: str | Path) -> list[dict[str, object]]:
    """The lines of a run, without times."""
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "cpu_seconds")} for line in lines]


def halved(run: str | Path, at_once: int) -> None:
    """Let a saved run continue as after a halving: each pass of the network takes `at_once` windows."""
    folder = RunFolder(Path(run))
    position, tensors = state.read(folder.state)
    position.at_once = at_once
    state.save(folder, position, mock.Mock(tensors=lambda: tensors))


def reached(process: subprocess.Popen[str], run: str | Path, step: int) -> bool:
    """Wait until a run has logged a step; False if it ends before."""
    while not any(f'"step": {step}, ' in line for line in Path(run, "metrics.jsonl").read_text().splitlines()):
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes of torchrun, by rank."""
    ranks = {}
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                ranks[int(entry[5:])] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


def lines_of_errors(err: str) -> list[str]:
    """The lines with which pdr ends, without those of torchrun."""
    return [line for line in err.splitlines() if line.startswith("error: ")]


def sha256_of_model(run: str | Path) -> str:
    """Of all weights of a model; its header has the time of its making."""
    weights = modelfile.read(RunFolder(Path(run)).model).weights
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def assert_same(one: str | Path, other: str | Path, steps: int) -> None:
    """Two runs of so many steps, with halved batches, are equal to the bit."""
    assert sha256_of_model(one) == sha256_of_model(other)
    (first, tensors), (second, others) = (state.read(RunFolder(Path(run)).state) for run in (one, other))
    assert (first.step, first.at_once) == (second.step, second.at_once) == (steps, 2)
    assert tensors.keys() == others.keys()
    assert not [name for name, tensor in tensors.items() if not tensor.equal(others[name])]
    assert metrics(one) == metrics(other)
