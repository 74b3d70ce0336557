"""The forward pass of a training step, in parts for batches that do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdr_cli.models.interfaces import Batch, Forecast, Terms
from pdr_cli.models.pdr import PDR
from pdr_cli.training.randomness import Randomness


def forward_in_parts(network: PDR, batch: Batch, at_once: int, randomness: Randomness) -> Forecast:
    """The forward pass of a batch in training, in parts of `at_once` windows.

    Only the forecast of each part is kept, and the part is run again in the backward pass (Chen et al. 2016, "Training Deep
    Nets with Sublinear Memory Cost"). So a loss is that of the whole batch, however its windows are weighted, and so are
    the gradients; but batch norms take their means over a part. The second pass draws the same random numbers.
    """
    if at_once >= len(batch.observed):
        return network(batch, "train")
    parts = [batch.rows(slice(i, i + at_once)) for i in range(0, len(batch.observed), at_once)]
    made = [_checkpointed(network, part, randomness) for part in parts]
    shares = [len(part.observed) / len(batch.observed) for part in parts]
    fused, coarse = torch.cat([out.fused for out in made]), torch.cat([out.coarse for out in made])
    return Forecast(fused, coarse, None, mean_terms([out.terms for out in made], shares))


def _checkpointed(network: PDR, part: Batch, randomness: Randomness) -> Forecast:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        again = _again(network, randomness, randomness.snapshot())
        return nullcontext(), again  # of the first pass and of the second

    out: Forecast = checkpoint(network, part, "train", use_reentrant=False, context_fn=contexts)
    return out


def mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The mean over parts with these shares of the examples."""
    return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum()


def mean_terms(terms: Sequence[Terms], shares: Sequence[float]) -> Terms:
    """The mean of each loss term over parts; see `mean`."""
    return {name: mean([part[name] for part in terms], shares) for name in terms[0]}


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The layers in training that normalise each window by the others of its batch."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]


def snapshot(network: nn.Module, randomness: Randomness) -> Callable[[], None]:
    """A function that undoes what a pass in training changes: drawn random numbers, and running means of batch norms."""
    means = [(buffer, buffer.clone()) for norm in batch_norms(network) for buffer in norm.buffers()]
    undraw = randomness.snapshot()

    def restore() -> None:
        for buffer, before in means:
            buffer.copy_(before)
        undraw()

    return restore


@contextmanager
def _again(network: nn.Module, randomness: Randomness, begin: Callable[[], None]) -> Iterator[None]:
    """The second pass over the same windows draws as the first, and must not count as a second batch."""
    restore = snapshot(network, randomness)
    begin()
    try:
        yield
    finally:
        restore()
