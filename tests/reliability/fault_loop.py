"""Fails one input or output call after the other while something is replaced, and looks at what is left.

    LD_PRELOAD=faults.so python -m tests.reliability.fault_loop netcdf/kill model/EIO ...

For n = 1, 2, 3 ... a child replaces the old target by the new one and is killed at its n-th call, or has that call fail,
until a child comes through untouched. After each, the target is read, and replaced once more without help. `netcdf/kill/10`
takes every tenth call.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import json
import mmap
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import formats, samples
from pdr_cli.data.formats import cf, stored, video
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.series import Series
from pdr_cli.errors import PdrError
from pdr_cli.inference import hindcast, unfinished
from pdr_cli.runs import container, modelfile
from pdr_cli.system import atomic
from pdr_cli.system.logs import Silence
from pdr_cli.system.processes import Processes

FAULTS = {"kill": (0, False, False), "EIO": (errno.EIO, False, False), "ENOSPC": (errno.ENOSPC, True, True)}
LIMIT = 5000  # calls; a loop that gets here does not end


@dataclass(frozen=True)
class Subject:
    """Something that is replaced: `write(path, number)` gives version `number` the name `path`, `read` tells which it is."""

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], int]
    left: tuple[str, ...] = ()  # files beside the target that belong there


@functools.cache
def sample(kind: str) -> Series:
    """The longer version of a small sample."""
    return samples.make(kind, 0).isel(time=slice(0, 5), y=slice(0, 16), x=slice(0, 16)).copy(deep=True)


def series_of(kind: str, number: int) -> Series:
    """Version 1 or 2 of a small sample."""
    return sample(kind).isel(time=slice(0, 3 + number))


def write_series(kind: str) -> Callable[[Path, int], None]:
    def write(path: Path, number: int) -> None:
        formats.write(series_of(kind, number), path, {"title": "a fault loop"})

    return write


def steps_of(path: Path) -> int:
    """Version by the number of steps, after every value was read."""
    if path.suffix == ".mp4":
        return int(video.read(path).load().sizes["time"]) - 3
    with stored.fields(path) as fields:
        return len(np.concatenate([*next(iter(fields.values())).blocks()])) - 3


@dataclass(frozen=True)
class Hindcast:
    """A hindcast whose model takes no time."""

    number: int

    def frames(self, low: int, high: int) -> np.ndarray:
        """Forecasts [n, τ, C, H, W] from inits [low, high)."""
        shape = (high - low, *hindcast_layout().shape[1:])
        random = np.random.default_rng([self.number, low, high])
        return random.random((shape[0], shape[1], 1, *shape[2:]), np.float32)


@functools.cache
def hindcast_layout() -> Layout:
    """Five forecasts, of which two make a chunk."""
    times = sample("weather").time.values
    first = sample("weather").isel(time=slice(1, 3)).assign_coords(forecast_reference_time=times[0])
    leads = (first.time.values - times[0]) / np.timedelta64(1, "h")
    made = cf.hindcast_layout(first.assign_coords(forecast_period=("time", leads)), times, {"title": "a fault loop"})
    return replace(made, chunks=(2, *made.chunks[1:]))


def write_hindcast(path: Path, number: int) -> None:
    """As `pdr predict --every-init`, which continues where an earlier run stopped."""
    alone = Processes()
    with hindcast.locked(path, alone):
        how = {"request": {"input": str(number)}, "compress": 1, "ranks": alone, "bar": Silence()}
        hindcast.write(Hindcast(number), path, hindcast_layout(), **how)  # type: ignore[arg-type]


def read_hindcast(path: Path) -> int:
    """Version by its numbers, of which every one is right, as is their hash."""
    with stored.fields(path) as fields:
        found = np.concatenate([*next(iter(fields.values())).blocks()])
    assert stored.provenance(path)["pdr_data_sha256"] == stored.sha256_of(path)
    low_high = unfinished.blocks(hindcast_layout())
    for number in (1, 2):
        if np.array_equal(found, np.concatenate([Hindcast(number).frames(*b)[:, :, 0] for b in low_high])):
            return number
    raise AssertionError("numbers of neither version")


def write_state(path: Path, number: int) -> None:
    import torch

    from pdr_cli.runs.folder import RunFolder
    from pdr_cli.training import state
    from pdr_cli.training.averages import Average
    from pdr_cli.training.randomness import Randomness

    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    (path.parent / "run").mkdir(exist_ok=True)
    randomness = Randomness(network, torch.device("cpu"))
    parts = state.Parts(network, optimizer, randomness, Average(network, 0.9))
    state.save(RunFolder(path.parents[1]), state.Position(step=number), parts)


def read_state(path: Path) -> int:
    from pdr_cli.training import state

    return state.read(path)[0].step


def write_model(path: Path, number: int) -> None:
    import torch
    from safetensors.torch import save

    tensors = {"network.a": torch.full((3,), float(number)), "climatology": torch.zeros(1, 1, 2, 2)}
    header = {"pdr": json.dumps({"format_version": modelfile.FORMAT_VERSION})}
    atomic.write_bytes(path, save(tensors, header | {"sha256": modelfile.digest(tensors, header)}))


def read_model(path: Path) -> int:
    content = path.read_bytes()
    header, tensors = container.text_of(content, path), container.tensors_of(content, path)
    modelfile.check_digest(header, modelfile.digest(tensors, header), path)
    return int(tensors["network.a"][0])


def write_folder(path: Path, number: int) -> None:
    with atomic.atomic_folder(path, replaces=lambda p: (p / "mark").is_file()) as made:
        (made / "mark").write_text(str(number))
        (made / "inside").mkdir()
        (made / "inside" / "field").write_bytes(bytes([number]) * 1000)


def read_folder(path: Path) -> int:
    number = int((path / "mark").read_text())
    assert (path / "inside" / "field").read_bytes() == bytes([number]) * 1000
    return number


def write_folder_by_two_renames(path: Path, number: int) -> None:
    atomic._exchange = lambda one, other: False
    write_folder(path, number)


def read_recovered(path: Path) -> int:
    """What the next writer finds: between two renames there is no folder until it is moved back."""
    atomic.recover(path)
    return read_folder(path)


SUBJECTS = {
    "hindcast": Subject("h.zarr", write_hindcast, read_hindcast),
    "hindcast-nc": Subject("h.nc", write_hindcast, read_hindcast),
    "text": Subject("a.txt", lambda p, n: atomic.write_text(p, str(n)), lambda p: int(p.read_text())),
    "netcdf": Subject("a.nc", write_series("weather"), steps_of),
    "hdf5": Subject("a.h5", write_series("traffic"), steps_of),
    "npz": Subject("a.npz", write_series("weather"), steps_of),
    "zarr": Subject("c.zarr", write_series("weather"), steps_of),
    "mp4": Subject("a.mp4", write_series("video"), steps_of),
    "model": Subject("model.safetensors", write_model, read_model),
    "state": Subject("state/last.safetensors", write_state, read_state, ("last-1.safetensors",)),
    "folder": Subject("a.zarr", write_folder, read_folder),
    "renames": Subject("b.zarr", write_folder_by_two_renames, read_recovered),
}


def loop(subject: Subject, fault: str, root: Path, stride: int = 1) -> dict[str, Any]:
    """How often each outcome came, and every case in which the target was neither old nor new, or was not replaced next."""
    library = ctypes.CDLL(None)
    library.faults_seen.restype = ctypes.c_long
    seen = mmap.mmap(-1, 8)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    error, lasting, writes = FAULTS[fault]
    target = root / subject.name
    old = root.with_name("old")  # written once, since every call starts from the same files
    shutil.rmtree(old, ignore_errors=True)
    (old / subject.name).parent.mkdir(parents=True)
    subject.write(old / subject.name, 1)
    gc.freeze()  # a search for garbage in a child would copy every page with an object of its parent
    for n in range(1, LIMIT, stride):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(old, root, symlinks=True)
        child = os.fork()
        if child == 0:
            library.faults_arm(os.fsencode(root), ctypes.c_long(n), error, int(lasting), int(writes))
            code = attempt(lambda: subject.write(target, 2))
            library.faults_disarm()
            seen[:8] = int(library.faults_seen()).to_bytes(8, "little")
            os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status >= 0 and int.from_bytes(seen[:8], "little") < n:
            return {"calls": n - 1, "outcomes": dict(outcomes), "wrong": wrong}
        outcomes[str(status)] += 1
        wrong += [f"{fault} at call {n}: {what}" for what in after(subject, target, status)]
    raise SystemExit(f"no end after {LIMIT} calls")


def attempt(write: Callable[[], None]) -> int:
    """Exit code of a command that does this."""
    try:
        write()
    except PdrError as error:
        return error.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def after(subject: Subject, target: Path, status: int) -> list[str]:
    """What is wrong after a fault: a target that is not whole, a lie about it, or a next run that needs help."""
    found = []
    try:
        number = subject.read(target)
        if number not in (1, 2) or (status == 0 and number != 2):
            found.append(f"exit {status}, but the target is version {number}")
    except Exception as error:
        found.append(f"exit {status}, and the target is not whole: {error!r}")
    try:
        subject.write(target, 2)
        if subject.read(target) != 2:
            found.append("the next run did not replace the target")
    except Exception as error:
        found.append(f"the next run failed: {error!r}")
    debris = sorted({p.name for p in target.parent.iterdir()} - {target.name, *subject.left, "run"})
    return found + ([f"left behind: {', '.join(debris)}"] if debris else [])


def main() -> None:
    np.seterr(all="ignore")
    # In memory if that can be had, where thousands of syncs take no time.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(os.path.realpath(tempfile.mkdtemp(dir=memory)))
    results = {}
    for argument in sys.argv[1:]:
        name, fault, *stride = argument.split("/")
        results[argument] = loop(SUBJECTS[name], fault, folder / "work", *map(int, stride))
    shutil.rmtree(folder)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
