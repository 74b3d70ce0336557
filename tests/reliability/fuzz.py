"""Changes files at random and reads them as the commands do, in a process of its own that may die of it.

A case is a small good file with a few of its bytes changed. Reading it must end in a PdrError with the exit code of bad
data, or in a result, within 5 seconds of processor time and a gigabyte of memory. A result must hang together: shapes,
times, names and units agree. Where a format or pdr itself keeps checksums (`Subject.checked`), it must also be what was
written: our forecasts in NetCDF, Zarr, HDF5 and NPZ (by what `pdr verify` says), our MP4s, models and states, compressed
NPZ, PNG. The others have none for all that they hold, and there numbers may differ unnoticed: plain NetCDF-3 and HDF5
have no checksums at all; NetCDF-4 and Zarr have them for the chunks of a compressed field, not for what describes it;
JPEG, GIF, AVI and the MP4s of others have none for pixels; uncompressed NPZ is mapped, and its checksum not computed.

    python -m tests.reliability.fuzz   # a worker: reads `subject path` line by line, answers each with a line of JSON
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

SECONDS = 5.0  # of processor time, for a case
HANG = 40.0  # of the clock, after which a worker is taken to be lost
MEMORY = 2**30  # bytes beyond what the worker has when it begins
HEADER = 1024  # bytes at the beginning of a file, where changes do most
EDGES = (0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 10**12, 2**62)

Read = Callable[[Path], list[np.ndarray | str]]


@dataclass(frozen=True)
class Subject:
    """A kind of file: how a good one is made, how it is read, and what may come of a changed one.

    Args:
        make: writes a good one, a file or a folder, whose name is given but for the suffix.
        read: what it holds, or raises as the commands do.
        checked: whether what is read must be what was written.
        codes: exit codes of a refusal.
        only: which files of a folder are changed, as a glob.
    """

    make: Callable[[Path], Path]
    read: Read
    checked: bool = False
    codes: tuple[int, ...] = (65,)
    only: str = "*"


# -- changes


def change(content: bytes, rng: np.random.Generator) -> bytes:
    """A file's bytes, changed in one to three places."""
    for _ in range(int(rng.integers(1, 4))):
        if content:
            content = CHANGES[int(rng.integers(len(CHANGES)))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Where to change: every second time in the header."""
    return int(rng.integers(min(len(content), HEADER) if rng.random() < 0.5 else len(content)))


def _length(rng: np.random.Generator) -> int:
    return int(2 ** rng.uniform(0, 10))


def _overwrite(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new[: len(content) - at] + content[at + len(new) :]


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return _overwrite(content, at, bytes([content[at] ^ 1 << int(rng.integers(8))]))


def _scramble(content: bytes, rng: np.random.Generator) -> bytes:
    return _overwrite(content, _place(content, rng), rng.bytes(_length(rng)))


def _same_byte(content: bytes, rng: np.random.Generator) -> bytes:
    return _overwrite(content, _place(content, rng), [b"\0", b"\xff"][int(rng.integers(2))] * _length(rng))


def _edge(content: bytes, rng: np.random.Generator) -> bytes:
    """A number that sizes and offsets go wrong with, of 2, 4 or 8 bytes in either order."""
    size, order = 2 ** int(rng.integers(1, 4)), ("little", "big")[int(rng.integers(2))]
    value = EDGES[int(rng.integers(len(EDGES)))] % 2 ** (8 * size)
    return _overwrite(content, _place(content, rng) & -size, value.to_bytes(size, order))  # type: ignore[arg-type]


def _written_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Digits of a text replaced by other digits, longer ones too."""
    start = _place(content, rng)
    at = next((i for i in range(start, len(content)) if 48 <= content[i] < 58), None)
    if at is None:
        return content
    end = next((i for i in range(at, len(content)) if not 48 <= content[i] < 58), len(content))
    return content[:at] + str(EDGES[int(rng.integers(len(EDGES)))]).encode() + content[end:]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _drop(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + _length(rng) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(content, rng), _length(rng)
    return content[:at] + content[at : at + length] + content[at:]


def _swap(content: bytes, rng: np.random.Generator) -> bytes:
    one, other, length = _place(content, rng), _place(content, rng), _length(rng)
    here, there = content[one : one + length], content[other : other + length]
    return _overwrite(_overwrite(content, one, there), other, here)


def _page(content: bytes, rng: np.random.Generator) -> bytes:
    """A disk's page that was never written."""
    return _overwrite(content, _place(content, rng) & -512, bytes(512))


CHANGES = (
    *(_flip, _flip, _scramble, _same_byte, _edge, _edge, _written_number),
    *(_cut, _drop, _repeat, _swap, _page),
)


def altered(good: Path, bad: Path, only: str, rng: np.random.Generator) -> Path:
    """A copy of a file, or of a folder with one of its files, changed."""
    if not good.is_dir():
        bad.parent.mkdir(parents=True, exist_ok=True)
        bad.write_bytes(change(good.read_bytes(), rng))
        return bad
    shutil.copytree(good, bad)
    every = sorted(p for p in bad.rglob(only) if p.is_file())
    chosen = every[int(rng.integers(len(every)))]
    chosen.write_bytes(change(chosen.read_bytes(), rng))
    return bad


# -- the worker


def work() -> None:
    """Read what standard input names, within limits, and answer on what was standard output."""
    # Libraries print there too.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from tests.reliability.fuzz_subjects import SUBJECTS

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for line in sys.stdin:
            name, _, path = line.rstrip("\n").partition(" ")
            answers.write(json.dumps(attempt(SUBJECTS[name].read, Path(path))) + "\n")


def attempt(read: Read, path: Path) -> dict[str, Any]:
    """How reading ends: {"end": "read", "digest"}, {"end": "refused", "code", ...} or {"end": "failed", ...}."""
    from pdr_cli.errors import PdrError

    began = time.process_time()
    try:
        result: dict[str, Any] = {"end": "read", "digest": digest(read(path))}
    except PdrError as error:
        result = {"end": "refused", "code": error.code, "name": error.name, "says": str(error)[:300]}
    except BaseException as error:
        import traceback

        result = {"end": "failed", "name": type(error).__name__, "says": traceback.format_exc()[-2500:]}
    return result | {"seconds": time.process_time() - began}


def digest(parts: list[np.ndarray | str]) -> str:
    """SHA-256 of what was read; all NaN are alike."""
    found = hashlib.sha256()
    for part in parts:
        array = np.asarray(part)
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class Worker:
    """A process that reads one file after the other; another takes its place if it dies or is lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, subject: str, path: Path) -> dict[str, Any]:
        """How reading a file ends; also {"end": "died"} or {"end": "hung"}."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its death shows when nothing is answered
            process.stdin.write(f"{subject} {path}\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], HANG)[0]:
            self.close()
            return {"end": "hung", "seconds": HANG}
        line = process.stdout.readline()
        if line:
            return json.loads(line)  # type: ignore[no-any-return]
        code = process.wait()
        self.close()
        return {"end": "died", "code": code, "seconds": 0.0}

    def kill(self) -> None:
        """End the process without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the process, if there is one."""
        self.kill()
        for stream in () if self._process is None else (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        env = os.environ | {
            "PYTHONPATH": str(root),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "MALLOC_ARENA_MAX": "2",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.fuzz"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root, env=env,
        )  # fmt: skip


@contextlib.contextmanager
def worker() -> Iterator[Worker]:
    """A worker that ends with the block."""
    made = Worker()
    try:
        yield made
    finally:
        made.close()


# -- the loop


@dataclass
class Outcome:
    """What came of the cases of one subject: how many ended how, and what went wrong with which file."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fault_of(subject: Subject, answer: dict[str, Any], good: str) -> str | None:
    """What is wrong with how a case ended, if anything."""
    if answer["end"] == "died":
        return f"the process died with {answer['code']}"
    if answer["end"] == "hung":
        return "no answer"
    if answer["end"] == "failed":
        return f"{answer['name']} is no PdrError: {answer['says']}"
    if answer["end"] == "refused" and answer["code"] not in subject.codes:
        return f"exit code {answer['code']} ({answer['name']}): {answer['says']}"
    if answer["seconds"] > SECONDS:
        return f"{answer['seconds']:.1f} seconds"
    if answer["end"] == "read" and subject.checked and answer["digest"] != good:
        return "other values than were written, unnoticed"
    return None


def fuzz(
    name: str, subject: Subject, good: Path, cases: Iterator[int], folder: Path, using: Worker, kept: Path
) -> Outcome:
    """Read a good file, and changed ones for each number in `cases`, which is their seed.

    Args:
        name: of the subject.
        subject: what it is.
        good: the file or folder.
        cases: seeds.
        folder: where changed copies stand while they are read.
        using: who reads them.
        kept: where files that something is wrong with stay.
    """
    first = using.ask(name, good)
    assert first["end"] == "read", f"the good {name} file cannot be read: {first}"
    outcome = Outcome()
    for seed in cases:
        case = folder / f"{seed}" / good.name
        altered(good, case, subject.only, np.random.default_rng(seed))
        answer = using.ask(name, case)
        outcome.ends[f"{answer['end']} {answer.get('name', '')}".strip()] += 1
        fault = fault_of(subject, answer, first["digest"])
        if fault is not None:
            stays = kept / f"{name}-{seed}" / good.name
            shutil.rmtree(stays.parent, ignore_errors=True)
            stays.parent.mkdir(parents=True)
            shutil.move(case, stays)
            outcome.faults.append(f"{name}, seed {seed}: {fault}\n  file: {stays}")
        shutil.rmtree(case.parent)
    return outcome


def report(outcomes: dict[str, Outcome], out: IO[str]) -> None:
    """A line for each subject."""
    for name, outcome in outcomes.items():
        ends = ", ".join(f"{count} {end}" for end, count in outcome.ends.most_common())
        print(f"{name:<20} {ends}; {len(outcome.faults)} faults", file=out)


if __name__ == "__main__":
    work()
