"""What a user's own program writes; `make types` checks it strictly, and nothing runs it."""

from pathlib import Path

import torch
import xarray as xr

import pdr_cli as pdr
from pdr_cli.inference.policy import InputPolicy


def story(air: Path) -> float:
    """Train, forecast and score, and draw a Gaussian."""
    run = pdr.train(air, preset="weather-small", settings={"train.steps": 10})
    run = pdr.fine_tune(run.path, xr.open_dataset(air), settings={"train.steps": 1}, out="tuned")
    model: pdr.Model = pdr.load(run.path)
    forecast: xr.Dataset = model.predict(xr.open_dataset(air), steps=2, policy=InputPolicy(fill_missing="last"))
    again: xr.Dataset = pdr.predict(air, model, every_init=True)
    scores = pdr.evaluate(air, model)
    one = torch.zeros(1, 2)
    image: torch.Tensor = pdr.render(one, one + 1, one[:, 0], one[:, :1], size=(8, 8), kernel_size=5)
    return float(image.sum()) + len(forecast) + len(again) + len(scores.lead) + len(model.variables)
