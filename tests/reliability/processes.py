"""Other processes that get in the way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def another_process(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`, which prints a line when it is ready and goes on until it is killed."""
    command = [sys.executable, "-c", code + "\nprint('ready', flush=True)\nimport time\ntime.sleep(600)\n"]
    started = subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.communicate()


LOCKS = "import sys\nfrom pdr_cli.system import locks\nheld = locks.locked(sys.argv[1])\nheld.__enter__()"
WRITES = "import sys, h5py\nout = h5py.File(sys.argv[1], 'a')"


def run(arguments: Sequence[str | Path], **how: object) -> subprocess.CompletedProcess[str]:
    """`pdr arguments...` in a process of its own."""
    command = [sys.executable, "-m", "pdr_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **{"timeout": 300, **how})  # type: ignore[call-overload, no-any-return]


def environment(**changes: str | None) -> dict[str, str]:
    """This environment with some variables set, or with None removed."""
    wanted = dict(os.environ) | {k: v for k, v in changes.items() if v is not None}
    return {k: v for k, v in wanted.items() if changes.get(k, "") is not None}
