"""The forward pass of a training step, in parts for batches that do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdr_cli.models.interfaces import Batch, Forecast, Predictor, Terms
from pdr_cli.models.pdr import PDR
from pdr_cli.training.randomness import Randomness


def forward_in_parts(
    network: nn.Module, batch: Batch, at_once: int, randomness: Randomness, recompute: bool = False
) -> Forecast:
    """The forward pass of a batch in training, in parts of `at_once` windows.

    Only the forecast of each part is kept, and the part is run again in the backward pass (Chen et al. 2016, "Training Deep
    Nets with Sublinear Memory Cost"). So a loss is that of the whole batch, however its windows are weighted, and so are
    the gradients; but batch norms take their means over a part. The second pass draws the same random numbers. With
    `recompute` the same holds for each stage of predictor and adapter, of which only the input is kept.
    """

    def run(part: Batch) -> Forecast:
        with _in_stages(network, randomness) if recompute else nullcontext():
            out: Forecast = network(part, "train")
        return out

    if at_once >= len(batch.observed):
        return run(batch)
    parts = [batch.rows(slice(i, i + at_once)) for i in range(0, len(batch.observed), at_once)]
    made = [_checkpointed(run, network, randomness, nothing_drawn)(part) for part in parts]
    shares = [len(part.observed) / len(batch.observed) for part in parts]
    fused, coarse = torch.cat([out.fused for out in made]), torch.cat([out.coarse for out in made])
    return Forecast(fused, coarse, None, mean_terms([out.terms for out in made], shares))


def nothing_drawn() -> Callable[[], None]:
    """The state of a network without noise, which there is nothing to restore of."""
    return lambda: None


def _checkpointed(
    run: Callable[..., Any],
    module: nn.Module,
    randomness: Randomness,
    state: Callable[[], Callable[[], None]],
) -> Callable[..., Any]:
    """`run`, of which only the input is kept, and which is run again in the backward pass.

    Args:
        run: passes tensors through `module`.
        module: whose batch norms count the first pass alone.
        randomness: drawn from alike in both passes.
        state: called before the first pass; what it returns is called before the second.
    """

    def forward(*inputs: Any, **named: Any) -> Any:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            undraw, restore = randomness.snapshot(), state()

            def begin() -> None:
                undraw()
                restore()

            return nullcontext(), _again(module, randomness, begin)  # of the first pass and of the second

        return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return forward


@contextmanager
def _in_stages(network: nn.Module, randomness: Randomness) -> Iterator[None]:
    """In this context, a pass keeps only the inputs of the stages of predictor and adapter; see `_checkpointed`."""
    pdr = next(module for module in network.modules() if isinstance(module, PDR))
    state = nothing_drawn if pdr.noise is None else pdr.noise.snapshot
    replaced = [(module, name, getattr(module, name)) for module, name in _stages(pdr)]
    for module, name, run in replaced:
        setattr(module, name, _checkpointed(run, module, randomness, state))
    try:
        yield
    finally:
        for module, name, _ in replaced:
            delattr(module, name)


def _stages(network: PDR) -> list[tuple[nn.Module, str]]:
    """The stages of a network that has gradients, and the names of the methods that run them."""
    found: list[tuple[nn.Module, str]] = []
    predictor = network.predictor
    if not network.frozen and isinstance(predictor, Predictor):
        parts = predictor.stages()
        found += [(part, "forward") for part in parts] if parts else [(predictor, "training_forward")]
    elif not network.frozen:
        found.append((predictor, "forward"))
    return found if network.adapter is None else [*found, (network.adapter, "training_forward")]


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
