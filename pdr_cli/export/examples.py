"""Windows that an exported graph is traced and tried with: climatology plus noise of its own size."""

from __future__ import annotations

import numpy as np
import torch

from pdr_cli.data.context import Context
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
    if contexts.climatology is not None:
        step = round(3600 * card.step.hours)
        first = FIRST_TIME + 1_234_567 * torch.arange(batch)[:, None]
        made["times"] = first - first % step + step * torch.arange(T + leads)
    if card.frames.lags:
        made["earlier"] = frames(card.frames.lags, leads)
        made["earlier"][:, 0, 0] = torch.nan
    if fields := card.frames.covariates:
        made["covariates"] = torch.randn((batch, T + leads, fields, *card.size), generator=generator)
    return made


def arrays(inputs: Example) -> tuple[np.ndarray, Context]:
    """The observed frames and the context of an example."""
    values = {name: tensor.numpy() for name, tensor in inputs.items()}
    return values.pop("observed"), Context(**values)
