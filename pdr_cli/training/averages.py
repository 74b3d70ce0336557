"""The exponential moving average of a network's weights, which is validated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

AVERAGE = "average."  # names of the averages among the tensors of a training's state


class Average:
    """Averages of the trained weights of a network; frozen weights and buffers are those of the network itself.

    Args:
        network: on its device, in the memory layout of its training.
        decay: weight of the average of the step before, in the long run; 0: nothing is averaged.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.trained = {n: p for n, p in network.named_parameters() if p.requires_grad} if decay else {}
        self.weights = [p.detach().clone() for p in self.trained.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after step 1, 2, ...; the decay rises with the steps, so that the first weights fade."""
        if self.weights:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.weights, self._parameters(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the network for the time of the context."""
        if not self.weights:
            yield
            return
        kept = [p.detach().clone() for p in self.trained.values()]
        self._set(self._parameters(), self.weights)
        try:
            yield
        finally:
            self._set(self._parameters(), kept)

    def tensors(self) -> dict[str, Tensor]:
        """The averages, as a training's state keeps them."""
        named = zip(self.trained, self.weights, strict=True)
        return {AVERAGE + name: weight.cpu().contiguous() for name, weight in named}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the averages of a training's state; a state without them begins them with the weights of the network."""
        found = [tensors.get(AVERAGE + name, p.detach()) for name, p in self.trained.items()]
        self._set(self.weights, found)

    def _parameters(self) -> list[Tensor]:
        return [p.detach() for p in self.trained.values()]

    @staticmethod
    @torch.no_grad()
    def _set(weights: list[Tensor], values: list[Tensor]) -> None:
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
