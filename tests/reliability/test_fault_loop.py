"""Every input and output call of a writer fails once: the target stays the old file or is the new one, whole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.processes import environment

FAST = [
    *("text/kill", "text/EIO", "text/ENOSPC", "hdf5/kill", "hdf5/EIO", "hdf5/ENOSPC", "mp4/kill"),
    *("netcdf/kill", "netcdf/ENOSPC"),
    *("zarr/kill/20", "hindcast/kill/80", "hindcast-nc/kill/80"),  # not every call: a store is many files
    *("state/kill", "model/kill", "folder/kill", "folder/EIO", "renames/kill", "renames/EIO"),
]
SLOW = [
    *(
        "netcdf/EIO",
        "state/EIO",
        "npz/kill",
        "npz/EIO",
        "npz/ENOSPC",
        "mp4/EIO",
        "mp4/ENOSPC",
        "zarr/kill",
        "zarr/EIO",
        "zarr/ENOSPC",
    ),
    *("hindcast/kill/3", "hindcast/EIO/5", "hindcast/ENOSPC/5"),
    *("hindcast-nc/kill/3", "hindcast-nc/EIO/5", "hindcast-nc/ENOSPC/5"),
    *("state/ENOSPC", "model/EIO", "model/ENOSPC", "folder/ENOSPC", "renames/ENOSPC"),
]
# What a command may end with.
ENDS = {"kill": {"-9"}, "EIO": {"0", "74"}, "ENOSPC": {"0", "74"}}
# A hindcast may be larger than memory, so that its file is not made there, and the C library may die of a failing disk.
DIES = {"hindcast-nc": {"-11"}}


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True)
    return library


def run_loops(shim: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.reliability.fault_loop", *names]
    env = environment(LD_PRELOAD=str(shim), PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # The C library of HDF5 prints to stdout too when it cannot close a file.
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def fast(shim: Path) -> dict[str, dict[str, Any]]:
    """All fast loops in one process, which imports torch once."""
    return run_loops(shim, FAST)


def check(name: str, result: dict[str, Any]) -> None:
    assert result["wrong"] == []
    assert result["calls"] > 5, "nothing was made to fail"
    subject, fault = name.split("/")[:2]
    assert set(result["outcomes"]) <= ENDS[fault] | DIES.get(subject, set()), result["outcomes"]


@pytest.mark.parametrize("name", FAST)
def test_the_target_is_whole_and_the_next_run_needs_no_help(fast: dict[str, dict[str, Any]], name: str) -> None:
    check(name, fast[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_target_is_whole_and_the_next_run_needs_no_help_in_the_long_loops(shim: Path, name: str) -> None:
    check(name, run_loops(shim, [name])[name])
