"""Learning rate and Adam's first beta as functions of progress, from 0 at the start of a run to 1 at its end.

`Schedule.progress` gives the progress at which a step of a run of known length reproduces OpenSTL's schedules exactly. A
run with a time limit passes its share of the time instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from pdr_cli.choices import SCHEDULES

RISE = 0.3  # OneCycle: share of the run in which the rate rises
START_DIVISOR, END_DIVISOR = 25, 1e4  # OneCycle: from lr / 25 to a 1e4-th of that
COSINE_FLOOR, WARMUP_START = 1e-6, 1e-5
ADAM_BETA1, LOW_BETA1, HIGH_BETA1 = 0.9, 0.85, 0.95


class Schedule(ABC):
    """Learning rate and β1 of a run."""

    @abstractmethod
    def progress(self, step: int, steps_per_epoch: int, epochs: float) -> float:
        """Progress of step 0, 1, … of a run of `steps_per_epoch`·`epochs` steps; `epochs` need not be whole."""

    @abstractmethod
    def rate(self, base_lr: float, progress: float, warmup: float) -> float:
        """The learning rate.

        Args:
            base_lr: the highest rate.
            progress: in [0, 1].
            warmup: share of the run in which the rate rises linearly from 1e-5, where the schedule has such a rise.
        """

    def beta1(self, progress: float) -> float:
        """Adam's β1 at `progress` in [0, 1]."""
        return ADAM_BETA1


class OneCycle(Schedule):
    """Rises for 30 % of the run and then falls, on cosines; β1 falls and rises. It ignores `warmup`."""

    def progress(self, step: int, steps_per_epoch: int, epochs: float) -> float:
        """As PyTorch counts: a rise of 0.3·n − 1 steps and a fall of the other 0.7·n.

        Step 0 is at 0, step 0.3·n − 1 at 0.3 and step n − 1 at 1; step / (n − 1) would be up to a step late at the summit.
        """
        total = steps_per_epoch * epochs
        rise = RISE * total - 1
        return RISE * step / rise if step < rise else (step + 1) / total

    def rate(self, base_lr: float, progress: float, warmup: float) -> float:
        """From lr / 25 to lr to lr / 25e4."""
        start = base_lr / START_DIVISOR
        return one_cycle(progress, start, base_lr, start / END_DIVISOR)

    def beta1(self, progress: float) -> float:
        """From 0.95 to 0.85 and back."""
        return one_cycle(progress, HIGH_BETA1, LOW_BETA1, HIGH_BETA1)


class Cosine(Schedule):
    """Falls to 1e-6 on half a cosine, which the warm-up replaces at its beginning but does not shift."""

    def progress(self, step: int, steps_per_epoch: int, epochs: float) -> float:
        """Whole epochs over epochs, because OpenSTL steps it once per epoch."""
        return step // steps_per_epoch / epochs

    def rate(self, base_lr: float, progress: float, warmup: float) -> float:
        """From lr to 1e-6."""
        return warming(base_lr, progress, warmup) if progress < warmup else ease(base_lr, COSINE_FLOOR, progress)


class Constant(Schedule):
    """One rate after the warm-up."""

    def progress(self, step: int, steps_per_epoch: int, epochs: float) -> float:
        """Steps over steps."""
        return step / (steps_per_epoch * epochs)

    def rate(self, base_lr: float, progress: float, warmup: float) -> float:
        """lr."""
        return warming(base_lr, progress, warmup) if progress < warmup else base_lr


def build_schedule(name: str) -> Schedule:
    """The schedule of that name.

    Raises:
        ConfigError: an unknown name.
    """
    schedule: Schedule = SCHEDULES.find(name)()
    return schedule


def warming(base_lr: float, progress: float, warmup: float) -> float:
    """A line from 1e-5 at 0 to `base_lr` at `warmup`."""
    return WARMUP_START + progress / warmup * (base_lr - WARMUP_START)


def one_cycle(progress: float, start: float, summit: float, end: float) -> float:
    """From `start` to `summit` in the first 30 %, to `end` in the rest."""
    if progress < RISE:
        return ease(start, summit, progress / RISE)
    return ease(summit, end, (progress - RISE) / (1 - RISE))


def ease(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
