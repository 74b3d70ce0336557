"""The processes that torchrun started, of which this is one; or this process alone."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pdr_cli.errors import PdrError
from pdr_cli.system.logs import log


@dataclass(frozen=True)
class Processes:
    """This process, `rank`, among `size`. With size 1 nothing is sent anywhere."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True in the process that creates and finishes what all write to."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of n pieces are this process's: neighbours, so that each writes one region."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def from_first(self, value: Any) -> Any:
        """What the first process passed here."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all at the end of the block; a failure that one process met there becomes a failure of all.

        Raises:
            PdrError: this process's own, or else that of the first one that has any.
        """
        mine: PdrError | None = None
        try:
            yield
        except PdrError as error:
            mine = error
        found = self._gather(None if mine is None else (mine.code, mine.name, str(mine)))
        if mine is not None:
            raise mine
        for failure in found:
            if failure is not None:
                raise _elsewhere(*failure)

    def _gather(self, value: Any) -> list[Any]:
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def started_by_torchrun() -> bool:
    """True in one of several processes that belong together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """Join the processes that torchrun started; only the first of them logs. Objects travel by gloo, which needs no GPU."""
    if not started_by_torchrun():
        yield Processes()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    here = Processes(dist.get_rank(), dist.get_world_size())
    if not here.first:
        log.setLevel(logging.CRITICAL)
    try:
        yield here
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> str:
    """The device that `auto` or `cuda` means to one of several processes: each on a machine has a GPU of its own.

    More processes than GPUs share them in turn.
    """
    if not started_by_torchrun() or name not in ("auto", "cuda"):
        return name
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % there}" if there else name


def _elsewhere(code: int, name: str, message: str) -> PdrError:
    error = PdrError(message)
    error.code, error.name = code, name
    return error
