"""The calibration of a trained model: its errors on the validation windows, added to its file at the end of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdr_cli.data.windows import Windows
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import calibration, modelfile, tensors
from pdr_cli.runs.calibration import Calibration
from pdr_cli.runs.modelfile import ModelFile
from pdr_cli.system.logs import log
from pdr_cli.system.memory import Batches
from pdr_cli.training.batches import TrainingData
from pdr_cli.trust import Trust


def calibrate(path: Path, data: TrainingData, device: torch.device, batches: Batches, trust: Trust | None) -> None:
    """Add to a model file the quantiles of the errors of its direct forecasts of the validation windows.

    Fewer windows than any interval needs leave it as it is.
    """
    windows = data.val.spread(calibration.most_windows(data.val.out_steps * int(np.prod(data.val.series[0].shape[1:]))))
    if len(windows) < calibration.LEAST:
        log.debug("calibration: %d validation windows are too few for intervals", len(windows))
        return
    file = modelfile.read(path)
    network = network_of(file, data, device, trust)
    at_once = batches.at_once or calibration.AT_ONCE
    blocks = [np.arange(i, min(i + at_once, len(windows))) for i in range(0, len(windows), at_once)]
    errors = np.empty((len(windows), windows.out_steps, *windows.series[0].shape[1:]), np.float32)
    for which in blocks:
        errors[which] = _errors(network, file, replace(data, val=windows), which, device)
    found = Calibration.of_errors(errors, about(windows, file))
    if not found.equals(file.calibration):  # a file that is written again has another hash, even with the same content
        modelfile.recalibrate(path, found)
    log.info("intervals from the errors of %d validation windows", len(windows))


def network_of(file: ModelFile, data: TrainingData, device: torch.device, trust: Trust | None) -> PDR:
    """The network of a model file, as inference builds it."""
    card = file.card
    network = registry.of(card.config, card.frames, trust)
    tensors.restore(network, file.weights)
    if card.bounds is not None:
        network.bound(*data.encoding.bounds(card.bounds))
    if card.hidden is not None:
        network.hide(torch.from_numpy(card.hidden))
    return network.eval().to(device)


def _errors(network: PDR, file: ModelFile, data: TrainingData, which: np.ndarray, device: torch.device) -> np.ndarray:
    """Truth - forecast of the validation windows numbered `which`, [B, τ, C, H, W]; NaN where truth is missing."""
    inputs: Batch = data.batch(data.val, which, device).inputs
    with torch.inference_mode():
        made = data.encoding.to_data(network(inputs._replace(target=None, known=None)).fused)
    bounds = file.card.bounds
    truth = data.val.batch(which, missing="all")[1]
    return np.where(np.isfinite(truth), truth, np.float32(np.nan)) - (made if bounds is None else bounds.clip(made))


def about(windows: Windows, file: ModelFile) -> dict[str, Any]:
    """The origin of a calibration: the validation windows of the training."""
    return {"split": "val", "data": [one["name"] for one in file.card.data], "period": windows.period}
