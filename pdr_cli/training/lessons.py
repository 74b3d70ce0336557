"""What the steps of a training learn, and how its network is validated: forecasts of windows; scenes have a lesson of theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli.models.interfaces import Batch, Mode, Terms, target_of
from pdr_cli.models.pdr import PDR
from pdr_cli.models.shares import place
from pdr_cli.schema import TrainConfig
from pdr_cli.system.memory import Batches
from pdr_cli.training import stages, step
from pdr_cli.training.batches import TrainingData, WeightedBatch
from pdr_cli.training.losses import Loss, Pool, alone
from pdr_cli.training.perceptual import Perceptual
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.ranks import ALONE, Ranks
from pdr_cli.training.validation import Scores, Validation

Examples = TypeVar("Examples")  # a batch of them


class Learned(NamedTuple):
    """The result of a pass over a batch.

    Args:
        total: the value to minimise.
        loss: the value to log as the loss.
        terms: further values to log, by name.
    """

    total: Tensor
    loss: Tensor
    terms: Terms


class Lesson(ABC, Generic[Examples]):
    """What a training loop is given: a network, batches of examples, their loss, and the scores of a validation.

    Attributes:
        network: on its device.
    """

    network: nn.Module

    @property
    @abstractmethod
    def count(self) -> int:
        """Training examples; an epoch takes each of them once."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames."""

    @abstractmethod
    def batch(self, which: np.ndarray, progress: float) -> Examples:
        """The training examples numbered `which`, as a step at this share of the training has them; of several ranks, the
        share of this one."""

    def expect(self, numbers: Callable[[], np.ndarray]) -> None:
        """Prepare for the examples of the next step, whose numbers a function gives; nothing by default."""

    def end(self) -> None:
        """End what `expect` has begun."""

    @abstractmethod
    def passes(self, batch: Examples) -> int:
        """The largest number of examples of a batch in a pass of the network, if memory allows it; on all ranks the same."""

    @abstractmethod
    def learn(self, batch: Examples, at_once: int, randomness: Randomness) -> Learned:
        """The loss of a batch, with at most `at_once` of its examples in a pass of the network.

        On several ranks, numbers are those of the whole step, and gradients this rank's part of them.
        """

    @abstractmethod
    def validate(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores:
        """Scores of the network on the validation examples."""

    def validate_anchor(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores | None:
        """Scores of what the network has to be better than; None: nothing."""
        return None

    def scheduled(self, progress: float) -> float:
        """The share of the learning rate's schedule that is done at this share of the training."""
        return progress

    def is_validated(self, progress: float) -> bool:
        """Whether a validation at this share of the training says something of the network."""
        return True

    @abstractmethod
    def named(self, which: np.ndarray) -> str:
        """Training examples, for a message."""


@dataclass
class ForecastLesson(Lesson[WeightedBatch]):
    """Forecasts of windows.

    Args:
        network: on its device.
        loss: on the network's scale.
        data: windows and their encoding.
        config: the [train] table.
        device: the network's.
        ranks: that share the windows of a step.
        pooled: the same loss, with means over the windows of all ranks; None: of a process alone.
    """

    network: PDR
    loss: Loss
    data: TrainingData
    config: TrainConfig
    device: torch.device
    ranks: Ranks = ALONE
    pooled: Loss | None = None

    def __post_init__(self) -> None:
        self.data = self.data.with_val_windows(self.config.val_windows)
        self.perceptual = Perceptual.of(self.config, self.data.encoding.scaling, self.device)

    @property
    def count(self) -> int:
        """See `Lesson.count`."""
        return len(self.data.train)

    @property
    def size(self) -> tuple[int, int]:
        """See `Lesson.size`."""
        return self.data.size

    def batch(self, which: np.ndarray, progress: float) -> WeightedBatch:
        """See `Lesson.batch`."""
        mine = self.ranks.share(len(which))
        batch = self.data.batch(self.data.train, which[mine], self.device)
        batch = stages.of(batch, self.config.stages, progress)
        if self.data.crops is not None:
            batch = self.data.crops.of(batch)
        inputs = batch.inputs._replace(progress=progress)
        if self.config.members > 1:
            # Drawn for the windows of all ranks on each of them, so that its generator goes on alike everywhere.
            seeds = torch.randint(2**62, (self.config.members, len(which)))[:, mine]
            inputs = self._drawn(inputs, seeds.flatten().to(self.device))
        return batch._replace(inputs=inputs)

    def expect(self, numbers: Callable[[], np.ndarray]) -> None:
        """See `Lesson.expect`; reads their frames ahead."""
        if self.data.ahead is not None:
            which = numbers()
            self.data.ahead.expect(which[self.ranks.share(len(which))])

    def end(self) -> None:
        """See `Lesson.end`."""
        if self.data.ahead is not None:
            self.data.ahead.end()

    def _drawn(self, inputs: Batch, seeds: Tensor) -> Batch:
        """Windows that each stand for `members` members with seeds of their own."""
        with torch.no_grad():
            return self.network.members(inputs, self.config.members, seeds)

    def passes(self, batch: WeightedBatch) -> int:
        """See `Lesson.passes`."""
        return self.config.members * len(batch.which)

    def learn(self, batch: WeightedBatch, at_once: int, randomness: Randomness) -> Learned:
        """See `Lesson.learn` and `learn`."""
        criterion = self.pooled or self.loss
        return learn(self.network, criterion, self.config, batch, at_once, randomness, self.ranks.mean, self.perceptual)

    def validate(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores:
        """See `Lesson.validate`."""
        return self._scores(batches, autocast, "forecast")

    def validate_anchor(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores | None:
        """Scores of the anchor alone; None for a network without one, or whose last part is not scored as a forecast."""
        network = self.network
        if network.anchor is None or (network.parts and network.scored_by_terms):
            return None
        return self._scores(batches, autocast, "anchor")

    def _scores(self, batches: Batches, autocast: AbstractContextManager[object], mode: Mode) -> Scores:
        batch, ranks = self.config.batch, self.ranks
        validation = Validation(self.network, self.loss, self.data, self.device, batches, batch, autocast, ranks)
        return validation.scores(mode)

    def scheduled(self, progress: float) -> float:
        """See `Lesson.scheduled`: each part of a training has a schedule of its own."""
        return place(self.network.parts, progress)[1] if self.network.parts else progress

    def is_validated(self, progress: float) -> bool:
        """See `Lesson.is_validated`: the last part of a training chooses the model."""
        parts = self.network.parts
        return not parts or place(parts, progress)[0] == place(parts, 1.0)[0]

    def named(self, which: np.ndarray) -> str:
        """See `Lesson.named`."""
        return self.data.starts(which)


def learn(
    network: PDR,
    loss: Loss,
    config: TrainConfig,
    batch: WeightedBatch,
    at_once: int,
    randomness: Randomness,
    pool: Pool = alone,
    perceptual: Perceptual | None = None,
) -> Learned:
    """The loss of a batch of windows; the logged loss is that of the forecast. `pool`: of the network's own terms."""
    target = target_of(batch.inputs)[: len(batch.which)]  # of members, all have the same
    out = step.forward_in_parts(network, batch.inputs, at_once, randomness, config.recompute)
    weights = stages.weights(config)
    value, terms = loss(out.fused, target, batch.weight)
    own = {name: pool(term, len(batch.which)) for name, term in out.terms.items()}
    total = value + sum(weights.get(name, 1.0) * term for name, term in own.items())
    terms |= own
    if config.coarse_weight:
        # Without it the coarse forecast becomes whatever suits the fusion, and feeding it back diverges.
        terms["coarse_loss"] = coarse_loss = loss(out.coarse, target, batch.weight)[0]
        total = total + config.coarse_weight * coarse_loss
    if perceptual is not None:
        terms["lpips"] = distance = pool(perceptual(out.fused, target, batch.weight), len(batch.which))
        total = total + config.lpips_weight * distance
    return Learned(total, value, terms)
