"""The renderer's autograd node in C++, which is optional: a call through it takes half of the time of a small frame.

It needs torch's C++ headers, takes a quarter of a minute to compile and works with one version of torch and Python. So it
is shipped, or a process of low priority builds it while this one renders without it: the next process uses it. Whatever
prevents it costs time and nothing else; `start` says what. $PREDGSPLAT_NODE: `auto`, `off`, or `wait` for its build.

Results are those of `derivatives.render`, bit for bit: the node calls the same kernels, and leaves to Python each call
that is not plain.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from torch import Tensor

from pdr_cli.splat import build, derivatives

log = logging.getLogger("pdr.splat")

ENVIRONMENT = "PREDGSPLAT_NODE"
MODULE = "predgsplat_node"
# A process that imports this package from where it is here, and nothing from the current folder.
START = """
import sys
del sys.path[: not sys.flags.safe_path]
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from pdr_cli.splat import node
node.main()
"""
RETRY = 24 * 3600  # seconds after which a build in the background that did not succeed is started again

# (coords, scale, rotation, amplitudes, size, kernel_size, normalize, sampling, backend) -> the image, or None for a call
# that only Python can serve. None until `start` has loaded it.
direct: Callable[..., Tensor | None] | None = None


@cache
def start(kernels: str) -> str:
    """Load the node for the CPU library at the path `kernels`, or have it built; returns why it is not used, or ""."""
    global direct
    mode = os.environ.get(ENVIRONMENT) or "auto"
    if mode == "off":
        return f"{ENVIRONMENT}=off"
    try:
        path = build.shipped("node") or _built(wait=mode == "wait")
        if path is None:
            return "its build has been started; the next process uses it"
        direct = load(path, kernels)
    except (build.BuildError, ImportError, OSError) as error:
        return str(error)
    return ""


def prepare() -> None:
    """Build a missing node now, so that `start` finds it; for benchmarks. Where it cannot be built, nothing happens."""
    if os.environ.get(ENVIRONMENT) != "off" and not build.shipped("node"):
        with suppress(build.BuildError):
            build.library("node")


def _built(wait: bool) -> Path | None:
    """The node in the cache. Where it is missing: built now, or None after the start of a build in the background."""
    path = build.cached("node")
    if wait or build.intact(path):
        return build.library("node")
    _build_in_background(path)
    return None


def _build_in_background(path: Path) -> None:
    """Start a build, unless one was started within the last day: it is running, or has failed.

    Raises:
        BuildError: it was, or the cache cannot be written.
    """
    attempt = path.with_suffix(".attempt")
    try:
        if attempt.exists() and time.time() - attempt.stat().st_mtime > RETRY:
            attempt.unlink()
        with attempt.open("x"):
            pass
    except FileExistsError:
        raise build.BuildError(f"{attempt.read_text() or 'its build is running'}; see {attempt}") from None
    command = [sys.executable, "-c", START, str(Path(__file__).parents[2]), str(attempt)]
    closed = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(command, **closed, start_new_session=True)  # type: ignore[call-overload]
    log.debug("building the renderer's autograd node in the background: %s", path)


def load(path: Path, kernels: str) -> Callable[..., Tensor | None]:
    """`direct` of the library at `path`.

    Raises:
        BuildError: it is damaged.
        ImportError, OSError: it does not load.
    """
    if not build.intact(path):
        raise build.BuildError(f"{path} is damaged")
    loader = ExtensionFileLoader(MODULE, str(path))
    spec = spec_from_loader(MODULE, loader)
    assert spec is not None
    module: Any = module_from_spec(spec)
    table = ctypes.c_char.in_dll(ctypes.CDLL(kernels), "predgsplat_kernels")
    module.connect(ctypes.addressof(table), derivatives.render_backward)
    return module.render


def main() -> None:
    """Build the node; what prevents it is written to the file of the attempt, which success removes."""
    attempt = Path(sys.argv[-1])
    with suppress(OSError, AttributeError):  # Windows has no os.nice
        os.nice(19)
    try:
        build.library("node")
    except build.BuildError as error:
        attempt.write_text(str(error))
    else:
        attempt.unlink(missing_ok=True)
