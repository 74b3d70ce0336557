"""Where the time of a training step goes: measured on steps of the run itself, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pdr_cli.models.pdr import PDR
from pdr_cli.system.memory import Batches
from pdr_cli.training.lessons import Learned, Lesson
from pdr_cli.training.loop import Trainer
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.validation import Scores

DATA, LOSS, BACKWARD, OPTIMISER, REST = "data", "loss", "backward", "optimiser", "rest"


class Spent(NamedTuple):
    """Seconds of a part, on the CPU and on the clock."""

    cpu: float
    wall: float


class Meter:
    """Adds up the time of parts that lie within each other; each second counts for the innermost one alone.

    Args:
        device: a GPU is waited for at each border, so that its work counts where it was asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, Spent] = {}
        self._open: list[str] = []
        self._last = self._now()

    def begin(self, part: str) -> None:
        """What follows is of `part`."""
        self._note()
        self._open.append(part)

    def end(self, part: str) -> None:
        """What follows is of what `part` lies in; nothing if `part` has not begun."""
        if part in self._open:
            self._note()
            self._open.remove(part)

    def restart(self) -> None:
        """Forget what was spent."""
        self.spent, self._last = {}, self._now()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """The block is of `part`."""
        self.begin(part)
        try:
            yield
        finally:
            self.end(part)

    def _note(self) -> None:
        now, part = self._now(), self._open[-1] if self._open else REST
        before = self.spent.get(part, Spent(0.0, 0.0))
        self.spent[part] = Spent(*(b + n - last for b, n, last in zip(before, now, self._last, strict=True)))
        self._last = now

    def _now(self) -> Spent:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Spent(time.process_time(), time.perf_counter())


class Metered(Lesson[Any]):
    """A lesson whose parts are timed.

    Args:
        lesson: the lesson.
        meter: of its parts; the time from the end of `learn` on is that of the backward pass.
    """

    def __init__(self, lesson: Lesson[Any], meter: Meter) -> None:
        self.lesson, self.meter, self.network = lesson, meter, lesson.network

    @property
    def count(self) -> int:
        """See `Lesson.count`."""
        return self.lesson.count

    @property
    def size(self) -> tuple[int, int]:
        """See `Lesson.size`."""
        return self.lesson.size

    def batch(self, which: np.ndarray, progress: float) -> Any:
        """See `Lesson.batch`."""
        with self.meter.of(DATA):
            return self.lesson.batch(which, progress)

    def passes(self, batch: Any) -> int:
        """See `Lesson.passes`."""
        return self.lesson.passes(batch)

    def learn(self, batch: Any, at_once: int, randomness: Randomness) -> Learned:
        """See `Lesson.learn`; what is not of a module of the network is the loss."""
        with self.meter.of(LOSS):
            learned = self.lesson.learn(batch, at_once, randomness)
        self.meter.begin(BACKWARD)
        return learned

    def validate(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores:
        """See `Lesson.validate`."""
        return self.lesson.validate(batches, autocast)

    def expect(self, numbers: Callable[[], np.ndarray]) -> None:
        """See `Lesson.expect`."""
        self.lesson.expect(numbers)

    def end(self) -> None:
        """See `Lesson.end`."""
        self.lesson.end()

    def scheduled(self, progress: float) -> float:
        """See `Lesson.scheduled`."""
        return self.lesson.scheduled(progress)

    def named(self, which: np.ndarray) -> str:
        """See `Lesson.named`."""
        return self.lesson.named(which)


def profile(loop: Trainer[Any], steps: int) -> dict[str, Spent]:
    """The time of each part of a step, the mean of `steps`; the largest first, and `rest` last.

    The same steps are taken before, so that memory, the optimiser's moments and what is kept of windows are there, as from the
    second epoch on. They change the network, which is of no use afterwards.

    Parts are `data`, the modules of the network by name (one within another counts by itself), `loss`, `backward` with the
    clipping of gradients, `optimiser`, and `rest`.
    """
    meter = Meter(loop.device)
    lesson = loop.lesson
    loop.lesson = Metered(lesson, meter)
    hooks = [hook for name, module in modules_of(lesson.network) for hook in _hooked(name, module, meter)]
    hooks.append(loop.optimizer.register_step_pre_hook(lambda *_: _between(meter)))
    hooks.append(loop.optimizer.register_step_post_hook(lambda *_: meter.end(OPTIMISER)))
    try:
        loop.seconds_per_step(steps - 1)
        loop.position.step = 0
        meter.restart()
        loop.seconds_per_step(steps - 1)
        meter.begin(REST)  # notes what came before
    finally:
        loop.lesson = lesson
        lesson.end()
        for hook in hooks:
            hook.remove()
    found = {part: Spent(spent.cpu / steps, spent.wall / steps) for part, spent in meter.spent.items()}
    order = sorted(found, key=lambda part: (part == REST, -found[part].cpu))
    return {part: found[part] for part in order}


def _between(meter: Meter) -> None:
    """The backward pass is over, and the optimiser's step begins."""
    meter.end(BACKWARD)
    meter.begin(OPTIMISER)


def modules_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a network that are timed."""
    if isinstance(network, PDR):
        named: dict[str, nn.Module | None] = {"predictor": network.predictor, "adapter": network.adapter}
        named |= {"fusion": network.fusion, "anchor": network.anchor}
        return [(name, module) for name, module in named.items() if module is not None]
    return list(network.named_children())


def _hooked(name: str, module: nn.Module, meter: Meter) -> list[Any]:
    """Hooks on the calls of a module; on `training_forward` too, by which predictors and adapters are trained."""
    begin: Callable[..., None] = lambda *_: meter.begin(name)  # noqa: E731 - of the types of hooks
    end: Callable[..., None] = lambda *_: meter.end(name)  # noqa: E731
    hooks: list[Any] = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    trained = getattr(type(module), "training_forward", None)
    if trained is not None:
        hooks.append(_Timed(name, module, meter))
    return hooks


class _Timed:
    """A module whose `training_forward` is timed, until `remove`."""

    def __init__(self, name: str, module: Any, meter: Meter) -> None:
        self.module, call = module, module.training_forward

        def timed(*arguments: Any) -> Any:
            with meter.of(name):
                return call(*arguments)

        module.training_forward = timed

    def remove(self) -> None:
        """Leave the module as it was."""
        del self.module.training_forward
