"""The processes that torchrun started together, or this process alone."""

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
    """This process, number `rank` of `size`. With size 1 nothing is sent."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True in the process that creates and finishes the common output."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """The pieces, of n, for this process: neighbours, so that each process writes one region."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def from_first(self, value: Any) -> Any:
        """The value that the first process passed."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def from_all(self, value: Any) -> list[Any]:
        """The values that all processes passed, by rank."""
        return self._gather(value)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all processes at the end of the block; a failure of one process in it becomes a failure of all.

        Raises:
            PdrError: this process's own, or else that of the first process that failed.
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
    """True in one of several processes that torchrun started together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def quiet_all_but_first() -> None:
    """Silence the log of every process but the first."""
    if int(os.environ.get("RANK", "0")) > 0:
        log.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started; only the first of them logs. Objects travel by gloo, which needs no GPU."""
    if not started_by_torchrun():
        yield Processes()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    quiet_all_but_first()
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> str:
    """The device of this process for `auto` or `cuda`: each process on a machine has a GPU of its own.

    More processes than GPUs share them in turn.
    """
    if not started_by_torchrun() or name not in ("auto", "cuda"):
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}" if count else name


def _elsewhere(code: int, name: str, message: str) -> PdrError:
    error = PdrError(message)
    error.code, error.name = code, name
    return error
