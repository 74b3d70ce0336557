"""Learning rate and Adam's first beta as functions of progress, from 0 at the start of a run to 1 at its end.

`progress_at` gives the progress at which a step of a counted run reproduces OpenSTL's schedules exactly. A run that is
bounded by time passes the share of the time instead.
"""

from __future__ import annotations

import math

from pdr_cli.errors import ConfigError, did_you_mean

SCHEDULES = ("onecycle", "cosine", "constant")

RISE = 0.3  # OneCycle: the share of the run in which the rate rises
START_DIVISOR, END_DIVISOR = 25, 1e4  # OneCycle: it starts at lr/25 and ends at a 1e4-th of that
COSINE_FLOOR, WARMUP_START = 1e-6, 1e-5
ADAM_BETA1, LOW_BETA1, HIGH_BETA1 = 0.9, 0.85, 0.95


def learning_rate(schedule: str, base_lr: float, *, progress: float, warmup: float) -> float:
    """The learning rate at `progress` in [0, 1].

    Args:
        schedule: "onecycle" rises for 30 % of the run and then falls, on cosines; "cosine" falls from `base_lr` to
            1e-6; "constant" stays.
        base_lr: the highest rate.
        progress: see `progress_at`.
        warmup: share of the run in which "cosine" and "constant" rise linearly from 1e-5 instead; the cosine is not
            shifted by it. OneCycle has its own rise and ignores it.

    Raises:
        ConfigError: an unknown schedule.
    """
    check(schedule)
    if schedule == "onecycle":
        start = base_lr / START_DIVISOR
        return one_cycle(progress, start, base_lr, start / END_DIVISOR)
    if progress < warmup:
        return WARMUP_START + progress / warmup * (base_lr - WARMUP_START)
    return ease(base_lr, COSINE_FLOOR, progress) if schedule == "cosine" else base_lr


def beta1(schedule: str, progress: float) -> float:
    """Adam's β1: 0.9, but under OneCycle from 0.95 to 0.85 as the rate rises and back as it falls."""
    check(schedule)
    if schedule == "onecycle":
        return one_cycle(progress, HIGH_BETA1, LOW_BETA1, HIGH_BETA1)
    return ADAM_BETA1


def progress_at(schedule: str, step: int, *, steps_per_epoch: int, epochs: float) -> float:
    """The progress to pass for optimiser step 0, 1, … of a run of `steps_per_epoch`·`epochs` steps.

    `epochs` is a fraction where a run is ended by its number of steps.

    * cosine: whole epochs done / epochs, since it is stepped once per epoch.
    * constant: steps done / steps.
    * onecycle: PyTorch counts a rise of 0.3·n − 1 steps and a fall of the other 0.7·n, so that step 0 is at 0, step
      0.3·n − 1 at 0.3 and step n − 1 at 1. Plain step / (n − 1) would put the summit up to a step too late.
    """
    check(schedule)
    if schedule == "cosine":
        return step // steps_per_epoch / epochs
    total = steps_per_epoch * epochs
    if schedule == "constant":
        return step / total
    rise = RISE * total - 1
    return RISE * step / rise if step < rise else (step + 1) / total


def one_cycle(progress: float, start: float, summit: float, end: float) -> float:
    """From `start` to `summit` in the first 30 %, to `end` in the rest."""
    if progress < RISE:
        return ease(start, summit, progress / RISE)
    return ease(summit, end, (progress - RISE) / (1 - RISE))


def ease(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def check(schedule: str) -> None:
    if schedule not in SCHEDULES:
        near = did_you_mean(schedule, SCHEDULES)
        raise ConfigError(f"No schedule is called {schedule!r}.{near} Known: {', '.join(SCHEDULES)}.")
