"""Windows that an exported graph is traced and tried with: climatology plus noise of its own size."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from pdr_cli.data.context import Context, for_each
from pdr_cli.data.covariates import CovariateSource
from pdr_cli.inference.header import given_of, reads_times
from pdr_cli.inference.model import Model

FIRST_TIME = 946_684_800  # 2000-01-01, in seconds since 1970
Example = dict[str, torch.Tensor]  # inputs of the graph by name


def example(model: Model, batch: int, steps: int | None = None) -> Example:
    """Inputs as a model expects them.

    Args:
        model: the model.
        batch: number of windows.
        steps: that are forecast; None: as many as in training.
    """
    card, contexts = model.card, model.contexts
    T, leads = card.config.data.in_steps, steps or card.config.data.out_steps
    generator = torch.Generator().manual_seed(0)

    def frames(*shape: int) -> torch.Tensor:
        noise = torch.randn((batch, *shape, len(card.variables), *card.size), generator=generator).numpy()
        around = 0.3 * card.scaling.invert(noise) - 0.3 * card.scaling.invert(0 * noise)
        return torch.from_numpy(model.climatology.coefficients[0] + around)

    made = {"observed": frames(T)}
    if reads_times(card, contexts):
        step = round(3600 * card.step.hours)
        first = FIRST_TIME + 1_234_567 * torch.arange(batch)[:, None]
        made["times"] = first - first % step + step * torch.arange(T + leads)
    if card.frames.lags:
        made["earlier"] = frames(card.frames.lags, leads)
        made["earlier"][:, 0, 0] = torch.nan
    if fields := given_of(card):
        made["covariates"] = torch.randn((batch, T + leads, fields, *card.size), generator=generator)
    return made


def arrays(inputs: Example) -> tuple[np.ndarray, Context]:
    """The observed frames of an example, and their context as a program reads it."""
    values = {name: tensor.numpy() for name, tensor in inputs.items()}
    return values.pop("observed"), Context(**values)


def forecast(model: Model, inputs: Example, steps: int | None = None) -> np.ndarray:
    """The model's own forecast of an example, whose climatology and calendar it computes without the graph."""
    observed, context = arrays(inputs)
    source, normal, covariates = model.contexts, None, context.covariates
    times = (
        []
        if context.times is None
        else [np.array(of, "datetime64[s]").astype("datetime64[ns]") for of in context.times]
    )
    if source.climatology is not None:
        normal = for_each(source.climatology.at, times)
    if isinstance(source.covariates, CovariateSource) and source.covariates.covariates.dates:
        frames = observed.shape[1] + (steps or model.card.config.data.out_steps)
        every = times or [np.zeros(frames, "datetime64[ns]")] * len(observed)  # maps alone need no times
        dates = for_each(source.covariates.dates, every).astype(np.float32)
        covariates = dates if covariates is None else np.concatenate([dates, covariates], axis=2)
    own = dataclasses.replace(context, normal=normal, covariates=covariates, times=None)
    return model.run(observed, steps, own).fused
