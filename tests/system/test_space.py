"""Free space is checked, reserved and named."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pdr_cli.errors import StorageError
from pdr_cli.system import space


@pytest.fixture
def ten_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with 10 MB free."""
    disk = SimpleNamespace(f_blocks=100, f_bavail=10, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)


@pytest.mark.usefixtures("ten_megabytes")
def test_output_needs_its_size_and_a_margin(tmp_path: Path) -> None:
    space.check_space(tmp_path / "a", 8 * 2**20)  # 9.6 MB with a margin of 20 %
    with pytest.raises(StorageError, match=r"needs about 10\.8 MB, but 10\.0 MB are free"):
        space.check_space(tmp_path / "a", 9 * 2**20)


@pytest.mark.usefixtures("ten_megabytes")
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"No space left on device \(10\.0 MB free in "),
        (OSError(errno.EIO, "Input/output error"), "Input/output error$"),
        (RuntimeError("NetCDF: HDF error"), r"HDF error \(10\.0 MB free in "),
    ],
)
def test_refusal_names_the_free_space_of_a_full_disk(tmp_path: Path, error: Exception, says: str) -> None:
    with pytest.raises(StorageError, match=says), space.storage_errors(tmp_path / "a"):
        raise error


def test_other_failures_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), space.storage_errors(tmp_path / "a"):
        raise RuntimeError("shapes differ")


def test_reserving_leaves_an_empty_file(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as stream:
        space.reserve(stream.fileno(), 1000)
    assert (tmp_path / "a").stat().st_size == 0
