"""Locks of outputs, and inputs that are being written."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from pdr_cli.errors import DataError, LockedError
from pdr_cli.system import atomic, locks
from tests.reliability.processes import LOCKS, WRITES, another_process

flock = fcntl.flock


def refuse_locks(file: int, operation: int) -> None:
    """`fcntl.flock` on a file system that refuses shared locks."""
    if operation & fcntl.LOCK_SH:
        raise OSError(errno.ENOLCK, "No locks available")
    flock(file, operation)


def test_process_takes_its_own_lock_again_and_leaves_no_file(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "a"), locks.locked(tmp_path / "a"):
        assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]
    assert list(tmp_path.iterdir()) == []


def test_lock_of_another_process_names_it(tmp_path: Path) -> None:
    with (
        another_process(LOCKS, tmp_path / "a") as other,
        pytest.raises(LockedError) as met,
        locks.locked(tmp_path / "a"),
    ):
        pass
    assert f"process {other.pid} on " in met.value.found


def test_damaged_input_is_locked_while_another_process_writes_it(tmp_path: Path) -> None:
    def read() -> None:
        with locks.inputs_in_use([tmp_path / "a.h5"]):
            raise DataError("damaged")

    with another_process(WRITES, tmp_path / "a.h5"), pytest.raises(LockedError, match="another process is writing it"):
        read()
    with pytest.raises(DataError, match="damaged"):
        read()


def test_file_system_without_locks_is_told_from_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").touch()
    monkeypatch.setattr(fcntl, "flock", refuse_locks)
    with pytest.raises(locks.UnsupportedLocksError, match="HDF5_USE_FILE_LOCKING"):
        locks.check_unlocked(tmp_path / "a.h5")


def test_writer_that_fails_for_want_of_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        with atomic.atomic_output(tmp_path / "a.nc"):
            monkeypatch.setattr(fcntl, "flock", refuse_locks)
            raise RuntimeError("NetCDF: HDF error")

    with pytest.raises(locks.UnsupportedLocksError, match="HDF5_USE_FILE_LOCKING"):
        write()
    assert list(tmp_path.glob("*.nc")) == []
