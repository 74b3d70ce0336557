"""What a model costs: parameters, operations, frames a second, memory.

Definitions stand beside the numbers, because published tables leave them out. Operations are counted by torch's counter:
2 for a multiply-add; half of them are the multiply-adds that fvcore counts. The counter does not see the renderer, whose
operations are worked out: about 20 for each value of a Gaussian's lattice and 2 for each of its channels.
"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from pdr_cli.inference.model import Model
from pdr_cli.verification.sections import Efficiency

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.interfaces import Batch

RUNS, WARM_UP = 100, 20
SECONDS = 20.0  # for each timing, at most
BATCH = 16
PER_LATTICE_VALUE = 20


def measure(model: Model) -> Efficiency:
    """Figures of one model at its own grid and horizon, with batches of 1 and of 16."""

    card = model.card
    steps = card.config.data.out_steps
    one, many = (card.frames.blank(steps, n, model.device) for n in (1, BATCH))
    flops = _flops(model, one)
    alone, p90 = _seconds(model, one)
    together, _ = _seconds(model, many)
    return Efficiency(
        parameters=sum(p.numel() for p in model.network.parameters()),
        flops=flops,
        macs=flops // 2,
        renderer_flops=_renderer_flops(model, steps),
        ms_p50=1e3 * alone,
        ms_p90=1e3 * p90,
        frames_per_second=steps / alone,
        sequences_per_second=1 / alone,
        sequences_per_second_batch_16=BATCH / together,
        memory_mb=_peak_memory(model.device) / 1e6,
        memory_of="GPU, largest allocation" if model.device.type == "cuda" else "process, largest resident size",
        grid=f"{len(card.variables)} x {card.size[0]} x {card.size[1]}, {card.config.data.in_steps} → {steps}",
    )


def _flops(model: Model, batch: Batch) -> int:
    """Operations of one forecast, without the renderer."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter does not know the fused attention of CPUs.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model.network(batch)
    return counter.get_total_flops()


def _seconds(model: Model, batch: Batch) -> tuple[float, float]:
    """Median and 90th percentile of a forecast: `RUNS` runs after `WARM_UP`, or as many as fit the time."""
    import numpy as np
    import torch

    times: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode(), model.arithmetic():
        for run in range(WARM_UP + RUNS):
            start = time.perf_counter()
            model.network(batch)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            times.append(time.perf_counter() - start)
            if time.perf_counter() - began > SECONDS and run >= 2:
                break
    kept = times[min(WARM_UP, len(times) // 3) :]
    return float(np.median(kept)), float(np.quantile(kept, 0.9))


def _renderer_flops(model: Model, steps: int) -> int:
    from pdr_cli.models.gaussians.base import drawing

    adapter = drawing(model.network.adapter)
    if adapter is None:
        return 0
    values = adapter.count(model.card.size) * adapter.kernel_size**2
    return steps * values * (PER_LATTICE_VALUE + 2 * len(model.card.variables))


def _peak_memory(device: torch.device) -> float:
    import torch

    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
