"""A training step in parts, for batches that do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdr_cli.models import interfaces
from pdr_cli.models.interfaces import Forecast
from pdr_cli.models.pdr import PDR


class Batch(NamedTuple):
    """Windows in network units, everywhere finite.

    Args:
        x: observed, [B, T, C, H, W].
        y: following, [B, τ, C, H, W].
        weight: how much each value of y counts, [B, τ, C, H, W] or what broadcasts to it; None: all alike.
        known: where x and y are what the data say, [B, T + τ, C, H, W]; None: everywhere.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None
    known: Tensor | None


def forward_in_parts(network: PDR, batch: Batch, progress: float, at_once: int) -> Forecast:
    """The forward pass of a batch in training, `at_once` windows after the other.

    Of each part no more than the forecast is kept, which is made again on the way back (Chen et al. 2016, "Training Deep
    Nets with Sublinear Memory Cost"). A loss is therefore that of the whole batch, however its windows are weighted, and so
    are the gradients; but batch norms take their means over a part.
    """
    x, y, _, known = batch
    if at_once >= len(x):
        return network(interfaces.Batch(x, y.shape[1], y, known, progress), "train")
    parts, shares = [], []
    for i in range(0, len(x), at_once):
        part = slice(i, i + at_once)
        known_part = None if known is None else known[part]
        out: Forecast = checkpoint(
            network, interfaces.Batch(x[part], y.shape[1], y[part], known_part, progress), "train",
            use_reentrant=False, context_fn=lambda: (nullcontext(), _norms_at_rest(network)),
        )  # fmt: skip
        parts.append(out)
        shares.append({name: term * (len(x[part]) / len(x)) for name, term in out.terms.items()})
    terms = {name: torch.stack([share[name] for share in shares]).sum() for name in shares[0]}
    return Forecast(torch.cat([out.fused for out in parts]), torch.cat([out.coarse for out in parts]), None, terms)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The layers that normalise each window by the others of its batch."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]


def snapshot(network: nn.Module, device: torch.device) -> Callable[[], None]:
    """A function that undoes what a pass in training changes: drawn random numbers, and running means of batch norms."""
    means = [(buffer, buffer.clone()) for norm in batch_norms(network) for buffer in norm.buffers()]
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        for buffer, before in means:
            buffer.copy_(before)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)

    return restore


@contextmanager
def _norms_at_rest(network: nn.Module) -> Iterator[None]:
    """The second pass over the same windows must not count as a second batch."""
    means = [(buffer, buffer.clone()) for norm in batch_norms(network) for buffer in norm.buffers()]
    try:
        yield
    finally:
        for buffer, before in means:
            buffer.copy_(before)
