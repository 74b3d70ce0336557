"""Batches that do not fit into memory: halved once, and said so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pdr_cli.errors import MemoryShortageError
from pdr_cli.system.logs import log

Result = TypeVar("Result")
# What torch's allocators, cuBLAS and the C++ library say; only CUDA has a class of its own for it.
SHORTAGE = re.compile("not enough memory|DefaultCPUAllocator|out of memory|bad_alloc|_ALLOC_FAILED")
SAME = "the results are the same but for rounding"


def is_shortage(error: BaseException) -> bool:
    """True if memory ran short, of the machine or of its GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and SHORTAGE.search(str(error)) is not None


@dataclass
class Batches:
    """How many windows go through a network together: half as many from the first time on that they do not fit.

    Args:
        setting: what sets their number for good, such as "--batch", with `{}` in the number's place.
        at_once: the most of them; None: all that there are.
        outcome: what a halving does to the results.
    """

    setting: str
    at_once: int | None = None
    outcome: str = SAME
    _halved: bool = False

    def attempt(self, work: Callable[[int], Result], size: int, undo: Callable[[], None] = lambda: None) -> Result:
        """What `work` makes of `size` windows, given how many of them to take at once.

        Where it fails for want of memory, `undo` takes back what it did, and it is asked again for half as many.

        Raises:
            MemoryShortageError: half as many do not fit either, or there is one window only.
        """
        at_once = min(size, self.at_once or size)
        try:
            return work(at_once)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            found = str(error).partition("\n")[0]
        # Past the except, where the exception does not hold the tensors of the failed try any more.
        undo()
        self._halve(at_once, found)
        return self.attempt(work, size, undo)

    def _halve(self, at_once: int, found: str) -> None:
        if at_once == 1:
            raise MemoryShortageError(
                f"one window alone does not fit into memory ({found}); close what else uses it, take a machine with more "
                "of it or --device cpu, or a smaller model or grid"
            )
        half = (at_once + 1) // 2
        if self._halved:
            raise MemoryShortageError(
                f"{at_once} windows at once do not fit into memory either, after a first halving ({found}); "
                f"set {self.setting.format(half)} or fewer, or close what else uses it"
            )
        self._halved, self.at_once = True, half
        log.warning(
            "%d windows at once do not fit into memory (%s); going on with %d at once, %s. %s avoids the failed try",
            at_once, found, half, self.outcome, self.setting.format(half),
        )  # fmt: skip
