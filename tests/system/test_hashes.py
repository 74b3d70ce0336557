"""SHA-256 of files, folders and bytes in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pdr_cli.system import hashes

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc": FIPS 180-2, appendix B.1


def test_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hashes.sha256(tmp_path / "a") == hashes.sha256_of(b"abc") == hashes.sha256_of_blocks([b"a", b"bc"]) == ABC


def test_large_files_are_hashed_in_pieces_by_one_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "HASHED_WHOLE", 4)
    monkeypatch.setattr(hashes, "PIECE", 2)
    (tmp_path / "a").write_bytes(b"0123456789")
    expected = hashlib.sha256(b"10" + b"01" + b"89").hexdigest()  # the size, and two pieces of 2 bytes: first and last
    assert hashes.sha256(tmp_path / "a") == hashes.sha256_of(b"0123456789") == expected


def test_hash_of_a_folder_changes_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    before = hashes.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert hashes.sha256(tmp_path) != before
