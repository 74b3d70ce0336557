"""Training on several ranks, the processes of torchrun: each makes its share of a step, and all take the same step.

Every rank holds the whole network and passes a part of the windows of a step through it. Losses are means over the windows
of all ranks (`Ranks.mean`), and gradients are summed after the backward pass (`Gradients`), not during it as
DistributedDataParallel does: until then a rank that has run out of memory can say so, and all of them try half as many
windows. A process alone exchanges nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pdr_cli.errors import UsageError
from pdr_cli.system import devices, processes
from pdr_cli.system.memory import is_shortage
from pdr_cli.system.processes import Processes

Result = TypeVar("Result")
WIDTH = 256  # numbers that an exchange sends at once: all of a step have this length, see `Ranks.exchange`
ANSWER = "PDR_RANK_TIMEOUT"  # environment variable: seconds within which a rank must answer in a step
BUCKET = 2**23  # numbers of a gradient that travel at once


class _ShortElsewhereError(MemoryError):
    """Another rank has run out of memory."""


@dataclass(frozen=True)
class Ranks:
    """This rank of a training.

    Args:
        processes: of torchrun.
        device: of the tensors that travel: the GPU of this rank, or the CPU where torchrun's processes have no GPU each.
    """

    processes: Processes = field(default_factory=Processes)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def alone(self) -> bool:
        """True for a training in one process."""
        return self.processes.size == 1

    @property
    def first(self) -> bool:
        """True on the rank that writes."""
        return self.processes.first

    def once(self, work: Callable[[], Result]) -> Result:
        """See `Processes.once`."""
        return self.processes.once(work)

    def share(self, n: int) -> slice:
        """The windows of this rank, of n of a step."""
        mine = self.processes.share(n)
        return slice(mine.start, mine.stop)

    def exchange(self, *numbers: float) -> list[Sequence[float]]:
        """The numbers that all ranks passed, by rank.

        What travels has one length, and says whether a rank has run out of memory. So a rank that has, and takes part in one
        exchange more, reaches all others, whichever exchange they wait in.

        Raises:
            MemoryError: another rank has run out of memory.
            LostProcessError: another rank has ended, or does not answer.
            RuntimeError: the ranks are at different places of the step.
        """
        if self.alone:
            return [numbers]
        found: list[list[float]] = [[] for _ in range(self.processes.size)]
        for start in range(0, max(1, len(numbers)), WIDTH):
            for of_rank, told in zip(found, self._exchange(0.0, numbers[start : start + WIDTH]), strict=True):
                of_rank.extend(told)
        return [*found]

    def _exchange(self, short: float, numbers: Sequence[float]) -> list[list[float]]:
        import torch.distributed as dist

        mine = torch.zeros(2 + WIDTH, dtype=torch.float64)
        mine[: 2 + len(numbers)] = torch.tensor((short, len(numbers), *numbers), dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.processes.size)]
        with self.processes.answering():
            dist.all_gather(found, mine)
        told = [one.tolist() for one in found]
        if short:
            return []
        if any(one[0] for one in told):
            rank = next(rank for rank, one in enumerate(told) if one[0])
            raise _ShortElsewhereError(f"rank {rank} is out of memory")
        if any(one[1] != len(numbers) for one in told):
            raise RuntimeError("the ranks are at different places of a step: does the network take random ways?")
        return [one[2 : 2 + len(numbers)] for one in told]

    def of_first(self, number: float) -> float:
        """The number that the first rank passed; see `exchange`."""
        return self.exchange(number)[0][0]

    def mean(self, local: Tensor, mass: Tensor | float) -> Tensor:
        """The mean over all ranks, of the mean over this rank's part of a step and the mass of that part.

        Its gradient is this rank's share of the gradient: the sum over the ranks is that of the mean.

        Args:
            local: a number; where the mass is 0, what a mean over nothing is.
            mass: the number of values, or the sum of their weights.
        """
        if self.alone:
            return local
        value, own = torch.stack(
            [local.detach().double(), torch.as_tensor(mass, device=local.device).double()]
        ).tolist()
        found = self.exchange(value, own)
        total = sum(weight for _, weight in found)
        if not total:
            return local
        pooled: Tensor = _Pooled.apply(local, sum(v * weight for v, weight in found) / total, own / total)
        return pooled

    def agreed(self, work: Callable[[int], Result]) -> Callable[[int], Result]:
        """`work`, which takes the number of windows in a pass, and runs out of memory on all ranks where it does on one."""
        if self.alone:
            return work

        def attempt(at_once: int) -> Result:
            try:
                made = work(at_once)
            except (RuntimeError, MemoryError) as error:
                if is_shortage(error) and not isinstance(error, _ShortElsewhereError):
                    self._exchange(1.0, ())
                raise
            self.exchange()
            return made

        return attempt

    def check(self, batch: int, count: float = math.inf) -> None:
        """Refuse steps that the ranks cannot divide.

        Args:
            batch: windows of a step.
            count: training windows, which are a step where they are fewer; infinite: not known yet.

        Raises:
            UsageError: names the nearest batches that they can divide.
        """
        size, windows = self.processes.size, int(min(batch, count))
        if windows % size:
            what = f"train.batch is {batch}" if windows == batch else f"there are {count} training windows"
            near = " or ".join(str(n) for n in (windows // size * size, -(-windows // size) * size) if 0 < n <= count)
            found = f"{what}, which {size} ranks cannot share equally"
            raise UsageError(found, way_out=f"take --set train.batch={near}" if near else f"start {count} or fewer")

    def check_loss(self, name: str, factory: object) -> None:
        """Refuse the loss of others, whose means would be those of a rank.

        Raises:
            UsageError: names it.
        """
        if not self.alone and not str(getattr(factory, "__module__", "")).startswith("pdr_cli."):
            found = f"--loss {name} is not of pdr, and its means would be over the windows of one rank"
            raise UsageError(found, way_out="train with it in one process, or take a loss of pdr")

    def align(self, network: nn.Module) -> None:
        """Give the network the weights and buffers of the first rank, whatever differs between machines."""
        if self.alone:
            return
        import torch.distributed as dist

        for tensor in [*network.parameters(), *network.buffers()]:
            moved = tensor.detach().to(self.device).contiguous()
            with self.processes.answering():
                dist.broadcast(moved, src=0)
            with torch.no_grad():
                tensor.copy_(moved)


ALONE = Ranks()


class _Pooled(torch.autograd.Function):
    """A mean over ranks in the place of this rank's."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, value: float, share: float) -> Tensor:
        ctx.share = share
        return local.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.share, None, None


@dataclass(frozen=True)
class Gradients:
    """The sums of gradients over ranks, in buffers that are kept, so that none is allocated while other ranks wait.

    Args:
        network: on its device.
        ranks: that take the step.
    """

    network: nn.Module
    ranks: Ranks

    @cached_property
    def _buckets(self) -> list[tuple[list[nn.Parameter], Tensor]]:
        """Parameters, and a buffer of their gradients and of a number for each: how many ranks have one."""
        found: list[list[nn.Parameter]] = []
        for parameter in filter(lambda p: p.requires_grad, self.network.parameters()):
            last = found[-1] if found else []
            fits = sum(p.numel() for p in last) + parameter.numel() <= BUCKET
            if last and fits and last[0].dtype == parameter.dtype:
                last.append(parameter)
            else:
                found.append([parameter])
        size = [sum(p.numel() + 1 for p in bucket) for bucket in found]
        empty = [torch.empty(n, dtype=b[0].dtype, device=self.ranks.device) for n, b in zip(size, found, strict=True)]
        return list(zip(found, empty, strict=True))

    @torch.no_grad()
    def sum(self) -> None:
        """Sum the gradients of all ranks on each of them."""
        if self.ranks.alone:
            return
        for parameters, buffer in self._buckets:
            places = list(accumulate((p.numel() for p in parameters), initial=0))
            parts = [
                buffer[start : start + p.numel()].view(p.shape) for p, start in zip(parameters, places, strict=False)
            ]
            flags = buffer[places[-1] :]
            for parameter, part in zip(parameters, parts, strict=True):
                part.zero_() if parameter.grad is None else part.copy_(parameter.grad)
            flags.copy_(torch.tensor([parameter.grad is not None for parameter in parameters]))
            self._reduce(buffer)
            for parameter, part, ranks in zip(parameters, parts, flags.tolist(), strict=True):
                if ranks:
                    parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                    parameter.grad.copy_(part)

    def _reduce(self, tensor: Tensor) -> None:
        import torch.distributed as dist

        with self.ranks.processes.answering():
            dist.all_reduce(tensor)


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """The ranks of a training that torchrun started, or a process alone; and the device of this one, see `devices.pick`.

    Raises:
        UsageError, DeviceError: a device that is not there.
    """
    if not processes.started_by_torchrun():
        yield ALONE, device
        return
    own = processes.own_device(device)
    picked = devices.pick(own)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    apart = picked.type == "cuda" and device in ("auto", "cuda") and here <= torch.cuda.device_count()
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    answer = timedelta(seconds=float(os.environ.get(ANSWER, "600")))
    with processes.joined("cpu:gloo,cuda:nccl" if apart else "gloo", answer) as found:
        yield Ranks(found, picked if apart else torch.device("cpu")), own


def refuse(what: str) -> None:
    """Refuse a start by torchrun with several ranks, each of which would do the same. Only the first rank logs it.

    Raises:
        UsageError: torchrun started more than one process.
    """
    if not processes.started_by_torchrun():
        return
    processes.quiet_all_but_first()
    raise UsageError(f"{what} in one process, and torchrun started several", way_out="start it without torchrun")
