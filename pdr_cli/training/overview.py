"""Lines that describe a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from pdr_cli import config as configuration
from pdr_cli.data.series import describe
from pdr_cli.models.gaussians.base import drawing
from pdr_cli.models.pdr import PDR
from pdr_cli.schema import Config
from pdr_cli.system import memory
from pdr_cli.system.logs import log
from pdr_cli.training import footprint
from pdr_cli.training.length import Length
from pdr_cli.training.prepare import Prepared
from pdr_cli.training.setup import has_parameters
from pdr_cli.training.state import Position
from pdr_cli.training.validation import MARGIN, excess

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


def covariates_line(prepared: Prepared) -> str:
    """What the network is given beside the series; "" if nothing."""
    found = prepared.covariates
    return "" if found is None else ", ".join(found.words(prepared.step))


def model_line(network: PDR, config: Config, size: tuple[int, int]) -> str:
    """Parameters of predictor and adapter, and the number of Gaussians."""
    total = sum(p.numel() for p in network.parameters())
    adapter = sum(p.numel() for p in network.adapter.parameters()) if network.adapter is not None else 0
    drawn = drawing(network.adapter)
    count = drawn.count(size) if drawn is not None else "no"
    layer = f" + {type(network.adapter).__name__} {adapter:,} ({count} Gaussians)" if adapter else ""
    return f"{config.model.backbone} {total - adapter:,} parameters{layer}"


def result_line(position: Position, length: Length) -> str:
    """The end of a run: its steps and time, the best model, and what ended it, unless it was its last step."""
    if not length.steps:
        return f"nothing to train; validation loss {position.best_loss:.4f}"
    steps = f"{position.step} steps in {position.elapsed:.0f} s"
    best = f"best validation loss {position.best_loss:.4f} at step {position.best_step}"
    return f"{steps}, {best}{_early_end(position, length)}"


def log_anchor(position: Position, config: Config) -> None:
    """Compare the best model with its anchor, and warn if it is worse in the loss or in the errors."""
    if math.isnan(position.anchor_loss):
        return
    share, name = excess(position), config.model.anchor
    numbers = f"validation loss {position.anchor_loss:.4g}, of the model {position.best_loss:.4g} ({_percent(share)})"
    errors = np.divide(position.best_rmse, np.maximum(position.anchor_rmse, 1e-12)) - 1
    rmse = f"RMSE {', '.join(_percent(e) for e in errors)}"
    if share <= 0 and (errors <= MARGIN).all():
        log.info("anchor  %s alone: %s, %s", name, numbers, rmse)
        return
    found = (
        "the network does not earn its place" if share > 0 else "the network has the lower loss and the larger errors"
    )
    log.warning("anchor  %s alone: %s, %s: %s; %s", name, numbers, rmse, found, _consequence(position))


def _consequence(position: Position) -> str:
    if position.anchor_alone:
        return "the anchor alone is saved as the model, and the network as state/model-1.safetensors"
    return "train longer, or the anchor alone with --backbone none --fusion none"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


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
    needed = footprint.line(footprint.of(run), memory.free())  # before the forecast whose operations are counted
    return [
        configuration.dump(run.config),
        f"# data        {data_line(run.prepared)}",
        *([f"# covariates  {read}"] if (read := covariates_line(run.prepared)) else []),
        f"# windows     {split_line(run.prepared)}",
        f"# model       {model_line(run.network, run.config, run.prepared.size)}",
        f"# FLOPs       {_flops(run) / 1e9:.2f} G a window (2 per multiply-add)",
        f"# memory      {needed}",
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
