"""Memory of this process and of the machine; batches that do not fit are halved once; what a pass has freed is kept."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pdr_cli.errors import MemoryShortageError
from pdr_cli.system.damage import first_line
from pdr_cli.system.logs import log

Result = TypeVar("Result")
# The texts of torch's allocators, cuBLAS, the C++ library and ONNX Runtime; only CUDA has an exception class of its own.
SHORTAGE = re.compile(
    "not enough memory|DefaultCPUAllocator|out of memory|bad_alloc|_ALLOC_FAILED|Failed to allocate memory"
)
SAME = "the results are the same but for rounding"
# glibc's options of mallopt, and their value: larger than any tensor that is freed in a pass.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Have the C library keep the memory that this process frees; False if it cannot, as any but glibc.

    Each pass of a network allocates the memory that the pass before has freed. By default glibc returns large blocks to the
    system at once; their pages, filled with zeros again, cost a sixth of a training step of TAU on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, KEPT_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


CGROUP = Path("/sys/fs/cgroup")  # version 2; the limits of a container or a batch job


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def free() -> int:
    """Bytes that this process can hold, what it holds included: of the machine, or of its container if that is less."""
    limits = [_available()]
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        limits += [] if limit == "max" else [int(limit) - int(used)]
    except (OSError, ValueError):
        pass
    return max(0, min(limits)) + resident()


def _available() -> int:
    """Bytes that new work can take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_shortage(error: BaseException) -> bool:
    """True if the machine or its GPU ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and SHORTAGE.search(str(error)) is not None


@dataclass
class Batches:
    """Number of windows in one pass of a network, halved when they do not fit into memory, at most once.

    Args:
        setting: the option that sets the number, such as "--batch {}".
        at_once: largest number of windows in a pass; None: no limit.
        outcome: the effect of a halving on the results, for the warning.
    """

    setting: str
    at_once: int | None = None
    outcome: str = SAME
    _halved: bool = False

    @property
    def halved_to(self) -> int | None:
        """Windows in a pass after a halving; None before one."""
        return self.at_once if self._halved else None

    def restore(self, halved_to: int | None) -> None:
        """Continue as after the halving of an earlier process; None: it had none."""
        if halved_to is not None:
            self._halved, self.at_once = True, halved_to

    def attempt(self, work: Callable[[int], Result], size: int, undo: Callable[[], None] = lambda: None) -> Result:
        """The result of `work` on `size` windows, which is called with the number of windows in a pass.

        Where memory ends, `undo` takes back what `work` did, and `work` is called again with half as many.

        Raises:
            MemoryShortageError: half as many do not fit either, or the window is a single one.
        """
        at_once = min(size, self.at_once or size)
        try:
            return work(at_once)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            found = first_line(error)
        # Outside the except clause, where the exception no longer holds the tensors of the failed try.
        undo()
        self._halve(at_once, found)
        return self.attempt(work, size, undo)

    def _halve(self, at_once: int, found: str) -> None:
        if at_once == 1:
            way_out = "close other programs that use memory, take a machine with more or --device cpu, or a smaller model or grid"
            raise MemoryShortageError(f"one window alone does not fit into memory ({found})", way_out=way_out)
        half = (at_once + 1) // 2
        if self._halved:
            raise MemoryShortageError(
                f"{at_once} windows at once do not fit into memory either, after a first halving ({found})",
                way_out=f"set {self.setting.format(half)} or fewer, or close other programs that use memory",
            )
        self._halved, self.at_once = True, half
        log.warning(
            "%d windows at once do not fit into memory (%s); continuing with %d at once, %s. %s avoids the failed try",
            at_once, found, half, self.outcome, self.setting.format(half),
        )  # fmt: skip
