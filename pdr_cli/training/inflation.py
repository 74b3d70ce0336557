"""Inflation: at each lead time a factor by which members depart from the direct forecast, so that spread and errors agree.

It is measured at the end of training, on validation windows, and kept in the model file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pdr_cli.data.windows import Windows
from pdr_cli.models.interfaces import target_of
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.pvvae import PVVAE
from pdr_cli.runs import modelfile
from pdr_cli.system.logs import log
from pdr_cli.system.memory import Batches
from pdr_cli.training.batches import TrainingData
from pdr_cli.training.calibration import network_of
from pdr_cli.training.warm_start import PREDICTOR
from pdr_cli.trust import Trust

WINDOWS, MEMBERS, AT_ONCE = 64, 8, 8  # validation windows, evenly spaced; members of each; windows of a batch
LARGEST = 4.0  # factor; the smallest is its inverse


def inflate(
    path: Path, data: TrainingData, val: Windows, device: torch.device, batches: Batches, trust: Trust | None
) -> None:
    """Put into a model file the factors that bring the spread of its members over their skill to 1 on validation windows.

    A model that does not inflate its members stays as it is.
    """
    file = modelfile.read(path)
    if file.card.config.latent is None or file.card.config.latent.inflate == "none":
        return
    network = network_of(file, data, device, trust)
    predictor = network.predictor
    if not isinstance(predictor, PVVAE) or predictor.inflation is None:  # the anchor alone was saved
        return
    before = predictor.inflation.cpu().clone()
    predictor.inflation.fill_(1)
    windows = val.spread(WINDOWS)
    found = factors(_sums(network, replace(data, val=windows), device, batches.at_once or AT_ONCE * MEMBERS))
    if not torch.equal(found, before):  # a file that is written again has another hash, even with the same content
        modelfile.reweigh(path, {f"{PREDICTOR}inflation": found})
    low, high = float(found.min()), float(found.max())
    log.info("members inflated %.2f to %.2f times, by %d validation windows", low, high, len(windows))


@torch.inference_mode()
def _sums(network: PDR, data: TrainingData, device: torch.device, at_once: int) -> Tensor:
    """What `factors` takes, over the validation windows; at most `at_once` members in a pass."""
    sums = torch.zeros(4, data.val.out_steps, dtype=torch.float64)
    for start in range(0, len(data.val), AT_ONCE):
        which = np.arange(start, min(start + AT_ONCE, len(data.val)))
        inputs, weight, _ = data.batch(data.val, which, device)
        seen, target = inputs._replace(target=None, known=None), target_of(inputs)
        seeds = torch.arange(MEMBERS)[:, None] * len(data.val) + torch.from_numpy(which)
        drawn = network.members(seen, MEMBERS, seeds.flatten().to(device))
        parts = [drawn.rows(slice(i, i + at_once)) for i in range(0, len(drawn.observed), at_once)]
        members = torch.cat([network(part).fused for part in parts]).unflatten(0, (MEMBERS, -1))
        known = torch.ones_like(target) if weight is None else (weight > 0).expand_as(target)
        sums += moments(members, network(seen).fused, target, known)
    return sums


def moments(members: Tensor, direct: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Sums at each lead time over known values, [4, τ]: of the variance of members [M, B, τ, C, H, W] times (M + 1) / M; and
    of the products of d, their mean less the direct forecast, and e, the error of that: d², d·e and e².
    """
    M = len(members)
    d, e = members.mean(0) - direct, direct - target
    values = torch.stack([members.var(0) * (M + 1) / M, d * d, d * e, e * e])
    return (values * known).double().sum((1, 3, 4, 5)).cpu()


def factors(sums: Tensor) -> Tensor:
    """The factors of the departures from the direct forecast at which spread over skill is 1, [τ]; `sums`: see `moments`.

    A factor a changes the error of the mean too: a²·variance = e² + 2a·d·e + a²·d² is solved for a. Where members are so far
    from the direct forecast for their spread that nothing solves it, the factor is the largest.
    """
    variance, dd, de, ee = sums
    room = variance - dd
    root = (de + (de * de + room * ee).clamp_min(0).sqrt()) / room
    solved = torch.where(room > 0, root, LARGEST).clamp(1 / LARGEST, LARGEST)
    return torch.where(variance + ee > 0, solved, 1.0).float()
