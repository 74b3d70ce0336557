"""Temporary files for unpacked and downloaded inputs, in a private folder that ends with the process."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

from pdr_cli.system.space import check_space, storage_errors

PREFIX = "pdr-input"


def scratch(name: str, write: Callable[[BinaryIO], None], need: int = 0) -> Path:
    """A new file under $TMPDIR, which is removed when the process ends; if it is killed, when the next one starts.

    Args:
        name: of the file.
        write: writes its content.
        need: bytes that it will take, 0: unknown.

    Raises:
        StorageError: no room for it.
    """
    path = Path(tempfile.mkdtemp(dir=_folder().name), name)
    check_space(path, need)
    try:
        with storage_errors(path), path.open("wb") as file:
            write(file)
    except BaseException:
        path.unlink()
        raise
    return path


def plainly_named(path: Path) -> Path:
    """`path`, or a link to it if libraries cannot encode its name; the link is removed when the process ends."""
    try:
        os.fspath(path).encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        link = Path(tempfile.mkdtemp(dir=_folder().name), "link")
        link.symlink_to(path.absolute())
        return link
    return path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """The folder of this process, which `tempfile` removes at exit, after those of killed processes of this machine."""
    mine = f"{PREFIX}-{socket.gethostname()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{mine}*"):
        number = left.name.removeprefix(mine).partition("-")[0]
        if number.isdigit() and not Path("/proc", number).exists() and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-")
