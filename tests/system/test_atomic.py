"""Outputs are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdr_cli.errors import OutputError, UsageError
from pdr_cli.system import atomic


def test_an_error_while_writing_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def die_half_way() -> None:
        with atomic.atomic_output(target) as temporary:
            temporary.write_text("half of the new")
            raise KeyError

    with pytest.raises(KeyError):
        die_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_fails_its_check_is_never_seen(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ValueError(path)

    with pytest.raises(ValueError, match="tmp"), atomic.atomic_output(tmp_path / "a.txt", verify=refuse) as temporary:
        temporary.write_text("wrong")
    assert list(tmp_path.iterdir()) == []


def test_mode_follows_umask_and_the_suffix_is_kept(tmp_path: Path) -> None:
    with atomic.atomic_output(tmp_path / "a.nc") as temporary:
        assert temporary.suffix == ".nc"
        temporary.write_bytes(b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.nc").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    atomic.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.parametrize(("path", "says"), [("nowhere/a.nc", "mkdir -p"), (".", "is a directory")])
def test_impossible_outputs_are_refused_before_any_work(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(OutputError, match=says):
        atomic.check_output(tmp_path / path)


def test_an_output_may_not_be_an_input(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"x")
    with pytest.raises(UsageError, match="also an input"):
        atomic.check_output(tmp_path / "." / "a.nc", [tmp_path / "a.nc"])
