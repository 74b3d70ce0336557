"""The processes that torchrun started together, or this process alone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pdr_cli.errors import LostProcessError, PdrError
from pdr_cli.system.damage import first_line
from pdr_cli.system.logs import log

Value = TypeVar("Value")
# How long a process waits for another one that works. One that died is noticed at once, because its connections close.
PATIENCE = timedelta(days=1)
SPEAKS_WITHIN = timedelta(seconds=2)  # the first process, where all end for one reason
ENDS = "ends"  # key of the common store: processes that end with an error


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `size`. With size 1 nothing is sent.

    Args:
        rank: number of this process.
        size: of all processes.
        objects: torch's group of them, for objects of any size; None with size 1.
        store: torch's store that outlives a process; None with size 1.
    """

    rank: int = 0
    size: int = 1
    objects: Any = None
    store: Any = None

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
        with self.answering():
            dist.broadcast_object_list(box, src=0, group=self.objects)
        return box[0]

    def from_all(self, value: Any) -> list[Any]:
        """The values that all processes passed, by rank."""
        return self._gather(value)

    def to_first(self, value: Value) -> list[Value]:
        """In the first process, the values that all processes passed, by rank; in the others nothing."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.first else None
        with self.answering():
            dist.gather_object(value, found, dst=0, group=self.objects)
        return found or []

    def once(self, work: Callable[[], Value]) -> Value:
        """The result of `work`, which the first process alone does, in all processes.

        Raises:
            PdrError: in all processes, if `work` raised it.
        """
        if self.size == 1:
            return work()
        with self.together():
            made = work() if self.first else None
        return self.from_first(made)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all processes at the end of the block; a failure of one process in it becomes a failure of all.

        Blocks may stand inside of each other, and `once` inside of them: a process that fails in the outer block tells it to
        those that wait in the inner one.

        Raises:
            PdrError: this process's own, or else that of the first process that failed.
        """
        mine: PdrError | None = None
        try:
            yield
        except PdrError as error:
            if error.told:
                raise
            mine = error
        found = self._gather(None if mine is None else (mine.code, mine.name, str(mine)))
        if mine is not None:
            mine.told = True
            raise mine
        for failure in found:
            if failure is not None:
                raise _elsewhere(*failure)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Report in this block, which waits for other processes, one that ended or does not answer.

        Raises:
            LostProcessError: with the reason that torch gives.
        """
        try:
            yield
        except RuntimeError as error:
            self.choose_speaker()
            found = f"another of the {self.size} processes has ended or does not answer ({_reason(error)})"
            raise LostProcessError(found, way_out="torchrun names it, and its last lines say why") from error

    def choose_speaker(self) -> None:
        """Let a process log why it ends: the first, or where that does not end, or is lost, one of the others."""
        try:
            if not self.first:
                with contextlib.suppress(RuntimeError):
                    self.store.wait([ENDS], SPEAKS_WITHIN)
            speaks = self.store.add(ENDS, 1) == 1
        except RuntimeError:  # the store is lost too
            speaks = True
        if speaks and not self.first:
            log.setLevel(logging.ERROR)

    def _gather(self, value: Any) -> list[Any]:
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found = [None] * self.size
        with self.answering():
            dist.all_gather_object(found, value, group=self.objects)
        return found


def started_by_torchrun() -> bool:
    """True in one of several processes that torchrun started together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def quiet_all_but_first() -> None:
    """Silence the log of every process but the first."""
    if int(os.environ.get("RANK", "0")) > 0:
        log.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def joined(backend: str = "gloo", answer: timedelta = PATIENCE) -> Iterator[Processes]:
    """Join the processes that torchrun started; only the first of them logs.

    Args:
        backend: torch's, of the default group.
        answer: within which each process must answer in the default group. Objects travel by gloo, which needs no GPU, in
            a group where a process may work for long before it answers.
    """
    if not started_by_torchrun():
        yield Processes()
        return
    import torch.distributed as dist

    quiet_all_but_first()
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore("pdr", store)
    dist.init_process_group(backend, timeout=answer, store=store, rank=rank, world_size=size)
    objects = dist.new_group(backend="gloo", timeout=PATIENCE)
    found = Processes(rank, size, objects, store)
    try:
        yield found
    except BaseException as error:
        if not getattr(error, "told", False):
            found.choose_speaker()
        raise
    finally:
        dist.destroy_process_group()  # the threads of gloo would end a process that exits with them by SIGABRT


def own_device(name: str) -> str:
    """The device of this process for `auto` or `cuda`: each process on a machine has a GPU of its own.

    More processes than GPUs share them in turn.
    """
    if not started_by_torchrun() or name not in ("auto", "cuda"):
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}" if count else name


def _reason(error: RuntimeError) -> str:
    """What torch says of a connection, without the place in its source and its advice."""
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", first_line(error)).partition(". ")[0]


def _elsewhere(code: int, name: str, message: str) -> PdrError:
    error = PdrError(message)
    error.code, error.name, error.told = code, name, True
    return error
