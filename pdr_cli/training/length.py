"""The length of a run: its limits in steps and in time, and the share of them that is done."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from pdr_cli.schema import TrainConfig
from pdr_cli.settings import parse_duration
from pdr_cli.training.ranks import ALONE, Ranks
from pdr_cli.training.state import Position

# Share of a time limit by which time may run ahead of the steps before it sets the pace. A run that needs less than the
# rest of its time limit follows its steps alone, so that it is the same on any machine, however slow its first steps are.
GRACE = 0.05


@dataclass(frozen=True)
class Length:
    """The limits of a run; the first one that is reached ends it.

    Args:
        per_epoch: steps of a pass over the training windows.
        steps: optimiser steps; 0: nothing to train.
        val_every: steps between validations.
        save_every: steps between saved states, beside those at the end of an epoch; 0: none.
        patience: validations without a new best after which the run ends; 0: it does not end so.
        seconds: of training.
        cpu_seconds: of training, on all threads of the process, and in all processes of torchrun.
        grace: see `GRACE`; 0 for a run whose only limit is its time.
    """

    per_epoch: int
    steps: int
    val_every: int
    save_every: int = 0
    patience: int = 0
    seconds: float = math.inf
    cpu_seconds: float = math.inf
    grace: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig, windows: int) -> Length:
        """The limits of a configuration with so many training windows; without any, nothing is trained."""
        per_epoch = max(1, windows // config.batch)
        passes = per_epoch * config.epochs if windows else 0
        return cls(
            per_epoch,
            min(passes, config.steps) if config.steps else passes,
            config.val_every or per_epoch,
            config.save_every,
            config.patience,
            parse_duration(config.budget) or math.inf,
            parse_duration(config.cpu_budget) or math.inf,
            GRACE if config.steps else 0.0,
        )

    @property
    def epochs(self) -> float:
        """Passes over the training windows."""
        return self.steps / self.per_epoch

    def reached(self, position: Position) -> bool:
        """True at the last step or the end of the time."""
        return position.step >= self.steps or self.time_share(position) >= 1

    def save_is_due(self, position: Position) -> bool:
        """True at the end of an epoch, and every `save_every` steps."""
        return any(position.step % every == 0 for every in (self.per_epoch, self.save_every) if every)

    def stalled(self, position: Position) -> bool:
        """True after `patience` validations without a new best; the state keeps the step of the best one."""
        without = position.step // self.val_every - position.best_step // self.val_every
        return 0 < self.patience <= without

    def time_share(self, position: Position) -> float:
        """Share of the time limits that is spent."""
        return max(position.elapsed / self.seconds, position.cpu / self.cpu_seconds)

    def pace(self, position: Position) -> float:
        """Progress by time, 0 to 1: where it is ahead of the steps, the schedules follow it."""
        return min(1.0, max(0.0, (self.time_share(position) - self.grace) / (1 - self.grace)))

    def progress(self, position: Position) -> float:
        """Share of the run that is done, by steps or by time, whichever is larger."""
        return max(min(1.0, position.step / self.steps), self.pace(position))


class Clock:
    """Seconds and CPU seconds of a run, with those before a resume.

    Args:
        position: at which training begins or continues.
        ranks: whose CPU seconds count together; the seconds are those of the first.
    """

    def __init__(self, position: Position, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self._began = time.monotonic() - position.elapsed
        self._cpu_before, self._cpu_began = position.cpu, time.process_time()

    def stamp(self, position: Position) -> None:
        """Enter the time of now, on all ranks the same."""
        spent = self.ranks.exchange(time.monotonic() - self._began, time.process_time() - self._cpu_began)
        position.elapsed = spent[0][0]
        position.cpu = self._cpu_before + sum(cpu for _, cpu in spent)
