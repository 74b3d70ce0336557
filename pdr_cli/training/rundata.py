"""The data of a run: windows, their encoding, and what makes the context of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from pdr_cli.data import grid, places
from pdr_cli.data.covariates import CovariateSource, with_values
from pdr_cli.errors import ConfigError
from pdr_cli.models import tiles
from pdr_cli.models.interfaces import Batch
from pdr_cli.runs import inputs
from pdr_cli.training.batches import Crops, TrainingData
from pdr_cli.training.prepare import Measured

if TYPE_CHECKING:
    from pdr_cli.training.run import Run

MEASURED, AT_ONCE = 512, 8  # training windows that predictors measure their constants on, and those of a batch


def of(run: Run, measured: Measured, cycles: tuple[int, ...]) -> TrainingData:
    """The data of a run; `cycles` are the earlier ones that its anchor or a baseline reads, in steps.

    Raises:
        ConfigError: weights by latitude for data without latitudes.
    """
    prepared = run.prepared
    area = grid.areas(prepared.series[0]) if run.config.train.latitude_weights else None
    if run.config.train.latitude_weights and area is None:
        raise ConfigError(
            f"train.latitude_weights is true, and {prepared.series[0].attrs['files'][0]} has no latitudes",
            way_out="train with --set train.latitude_weights=false",
        )
    source = covariate_source(run, measured)
    contexts = inputs.contexts_of(run.config, measured.climatology, cycles, source)
    train, val = prepared.train, prepared.val
    if source is not None and source.covariates.variables:
        train, val = with_values(train, source, "train on"), with_values(val, source, "validate on")
    return TrainingData(train, val, measured.encoding, area, contexts, crops=crops_of(run))


def crops_of(run: Run) -> Crops | None:
    """The parts of the grid that steps are trained on; None: the whole grid."""
    sides = run.config.train.crop
    if not sides:
        return None
    return Crops((sides[0], sides[1]), tiles.cell_of(run.config.model), run.frames.periodic)


def covariate_source(run: Run, measured: Measured) -> CovariateSource | None:
    """What makes the covariates of a run; None if it has none."""
    if measured.covariates is None:
        return None
    grid, step = places.of(run.prepared.series[0]), run.prepared.step
    fill_missing = run.config.data.fill_missing
    return CovariateSource(measured.covariates, grid, step, measured.scaling, measured.climatology, fill_missing)


def measured_windows(data: TrainingData, device: torch.device) -> Iterator[Batch]:
    """Training windows, evenly spaced, in batches for `PDR.measure`."""
    chosen = data.train.spread(MEASURED)
    for start in range(0, len(chosen), AT_ONCE):
        yield data.batch(chosen, np.arange(start, min(start + AT_ONCE, len(chosen))), device).inputs
