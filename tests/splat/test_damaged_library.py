"""A library that is not as it was built is never opened: it would end the process with SIGBUS, or draw wrongly."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pdr_cli.splat import build, native

try:
    LIBRARY = build.library("cpu").read_bytes()
except build.BuildError as error:
    pytest.skip(str(error), allow_module_level=True)

DAMAGE = {
    "cut to a part": LIBRARY[:20000],
    "cut by a byte": LIBRARY[:-1],
    "longer by a byte": LIBRARY + b"\0",
    "a flipped bit": LIBRARY[:5000] + bytes([LIBRARY[5000] ^ 1]) + LIBRARY[5001:],
    "a flipped bit of the checksum": LIBRARY[:-1] + bytes([LIBRARY[-1] ^ 1]),
    "empty": b"",
    "shorter than a checksum": b"predgsplat",
    "nothing but a checksum": LIBRARY[-build.CHECKSUM_BYTES :],
    "another file": b"<html>404</html>" * 1000,
    # A file from before there were checksums cannot be told from one that was cut, and costs one build.
    "without a checksum": LIBRARY[: -build.CHECKSUM_BYTES],
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of this machine's library in an empty cache."""
    monkeypatch.setenv(build.CACHE_ENVIRONMENT, str(tmp_path))
    return tmp_path / build.cpu_recipe(build.cpu_level()).name()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_library_is_built_anew_with_one_line(name, cached, monkeypatch, caplog):
    cached.write_bytes(DAMAGE[name])
    monkeypatch.setattr(build, "_build", lambda recipe, path: path.write_bytes(LIBRARY))
    with caplog.at_level("INFO", logger="pdr.splat"):
        assert build.library("cpu") == cached
    assert cached.read_bytes() == LIBRARY
    (line,) = caplog.messages
    assert f"{cached} is damaged or of an earlier version; compiling" in line


def test_an_intact_library_is_used_as_it_is(cached, monkeypatch, caplog):
    cached.write_bytes(LIBRARY)
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("built again"))
    assert build.library("cpu") == cached
    assert not caplog.messages


def test_a_damaged_library_in_a_cache_that_cannot_be_written_names_the_cache(cached, monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(build.tempfile, "mkdtemp", refuse)
    cached.write_bytes(LIBRARY)
    assert build.library("cpu") == cached  # nothing is written for an intact one
    cached.write_bytes(DAMAGE["cut to a part"])
    with pytest.raises(build.BuildError, match=r"cannot write to .* \(Read-only file system\); set PREDGSPLAT_CACHE"):
        build.library("cpu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_library_that_cannot_be_read_is_not_intact(cached):
    cached.write_bytes(LIBRARY)
    cached.chmod(0)
    assert not build.intact(cached)


def test_a_damaged_shipped_library_is_not_opened(cached, monkeypatch):
    cached.write_bytes(DAMAGE["cut to a part"])

    def no_compiler(kind: str) -> Path:
        raise build.BuildError("no C++ compiler found")

    monkeypatch.setattr(build, "shipped", lambda kind: cached)
    monkeypatch.setattr(build, "library", no_compiler)
    reason = native.load.__wrapped__("cpu").reason
    assert reason == f"{cached} does not load: it is damaged, or was changed after its build; no C++ compiler found"


def test_the_check_takes_milliseconds(cached):
    cached.write_bytes(LIBRARY)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        assert build.intact(cached)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.005


def test_a_cut_library_ends_no_process(cached):
    whole = cached.with_suffix(".whole")
    whole.write_bytes(LIBRARY)
    cached.write_bytes(DAMAGE["cut to a part"])
    code = f"""
    import shutil, torch
    from pdr_cli import splat
    from pdr_cli.splat import build
    build._build = lambda recipe, path: shutil.copy({str(whole)!r}, path)
    one = torch.ones(1, 1)
    inputs = (0 * one.expand(1, 2), one.expand(1, 2), one[0], one)
    print(splat.render(*inputs, size=(5, 5), kernel_size=3, backend="cpu").shape)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout) == (0, "torch.Size([1, 5, 5])\n"), result.stderr
    assert result.stderr.count("is damaged or of an earlier version") == 1
    assert build.intact(cached)
