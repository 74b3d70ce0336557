"""Lines that describe a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pdr_cli import config as configuration
from pdr_cli.data.series import describe
from pdr_cli.models.gaussians.base import GaussianAdapter
from pdr_cli.models.pdr import PDR
from pdr_cli.schema import Config
from pdr_cli.training.length import Length
from pdr_cli.training.prepare import Prepared
from pdr_cli.training.setup import has_parameters
from pdr_cli.training.state import Position

if TYPE_CHECKING:
    from pdr_cli.training.run import Run

LISTED = 8  # assumptions, at most


def data_line(prepared: Prepared) -> str:
    """The series; of several clips the first, and their number."""
    more = len(prepared.series) - 1
    return describe(prepared.series[0]) + (f" and {more} more clips" if more else "")


def split_line(prepared: Prepared) -> str:
    """Windows in each part, and the rule of the split."""
    counts = f"{len(prepared.train)} / {len(prepared.val)} / {len(prepared.test)} windows to train / validate / test"
    return f"{counts} ({prepared.split.rule})"


def assumed_line(prepared: Prepared) -> str:
    """What the files leave open and was assumed; "" if nothing."""
    texts = list(dict.fromkeys(text for one in prepared.series for text in one.attrs.get("assumed", ())))
    more = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return "; ".join(texts[:LISTED] + more)


def model_line(network: PDR, config: Config, size: tuple[int, int]) -> str:
    """Parameters of predictor and adapter, and the number of Gaussians."""
    total = sum(p.numel() for p in network.parameters())
    adapter = sum(p.numel() for p in network.adapter.parameters()) if network.adapter is not None else 0
    count = network.adapter.count(size) if isinstance(network.adapter, GaussianAdapter) else "no"
    layer = f" + {type(network.adapter).__name__} {adapter:,} ({count} Gaussians)" if adapter else ""
    return f"{config.model.backbone} {total - adapter:,} parameters{layer}"


def result_line(position: Position, length: Length) -> str:
    """The end of a run: its steps and time, the best model, and what ended it, unless it was its last step."""
    if not length.steps:
        return f"nothing to train; validation loss {position.best_loss:.4f}"
    steps = f"{position.step} steps in {position.elapsed:.0f} s"
    best = f"best validation loss {position.best_loss:.4f} at step {position.best_step}"
    return f"{steps}, {best}{_early_end(position, length)}"


def _early_end(position: Position, length: Length) -> str:
    if position.step >= length.steps:
        return ""
    if length.stalled(position):
        return f"; ended early, after {length.patience} validations without a lower loss"
    return "; ended by train.cpu_budget" if position.cpu >= length.cpu_seconds else "; ended by train.budget"


def _steps_line(run: Run) -> str:
    if not has_parameters(run.network):
        return "none: nothing to train"
    return f"{max(1, len(run.prepared.train) // run.config.train.batch)} an epoch"


def lines(run: Run) -> list[str]:
    """A run before it begins: configuration, data, windows, parameters, FLOPs and memory."""
    weights = sum(p.numel() for p in run.network.parameters()) * 4
    return [
        configuration.dump(run.config),
        f"# data        {data_line(run.prepared)}",
        f"# windows     {split_line(run.prepared)}",
        f"# model       {model_line(run.network, run.config, run.prepared.size)}",
        f"# FLOPs       {_flops(run) / 1e9:.2f} G a window (2 per multiply-add)",
        f"# memory      {4 * weights / 2**20:.0f} MB for weights, gradients and optimiser",
        f"# steps       {_steps_line(run)}",
    ]


def _flops(run: Run) -> int:
    """Of the forecast of one window."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter does not know the fused attention of CPUs.
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        run.network(run.frames.blank())
    return counter.get_total_flops()
