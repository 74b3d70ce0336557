"""Python processes that have imported torch when they start: they are forked from a server that imports it once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

LIMIT = 300  # seconds, after which a process is killed


class Server:
    """Runs code in processes of their own, one after the other."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes what the processes print."""
        self.out, self.err = folder / "out", folder / "err"
        command = [sys.executable, "-m", "tests.splat.forked", str(self.out), str(self.err)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, cwd=root, text=True, bufsize=1, **pipes)

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run code with these variables beside those of the test, and wait for it."""
        request = {"code": textwrap.dedent(code), "environment": os.environ | environment, "folder": os.getcwd()}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(code, status, self.out.read_text(), self.err.read_text())

    def close(self) -> None:
        self.process.communicate(timeout=60)  # closes its input, which ends it


def serve(out: str, err: str) -> None:
    """Fork a process for each line of stdin, and print its exit status."""
    import torch  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            for stream, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            signal.alarm(LIMIT)
            os._exit(execute(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def execute(code: str, environment: dict[str, str], folder: str) -> int:
    """Run code as `python -c` does; its exit code."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(*sys.argv[1:])
