"""Run `pdr` in this process, as a user would type it."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import typer.main

from pdr_cli.process import main
from pdr_cli.system.logs import log

# The commands are read from their functions once, not at each call: 30 ms of CPU time.
COMMAND = functools.cache(typer.main.get_command)


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of stderr."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def pdr(*arguments: str | Path) -> Result:
    """`pdr arguments...`: exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["pdr", *map(str, arguments)]
    with (
        mock.patch.object(typer.main, "get_command", COMMAND),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        before = log.handlers, log.propagate, log.level
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:  # as of a process that ends
            log.handlers, log.propagate = before[:2]
            log.setLevel(before[2])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())
