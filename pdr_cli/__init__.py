"""pdr: forecasts of weather fields, traffic grids and video by Predictive Differentiable Rendering.

`pdr_cli.load("runs/a").predict(xr.open_dataset("input.nc"))` gives the same numbers as `pdr predict`.
"""

__version__ = "0.1.0"

from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdr_cli.inference.model import Model


def load(model: str | _Path | None = None, device: str = "auto") -> "Model":
    """Load a trained model: a run folder, a `model.safetensors`, a run name, or by default the newest run.

    Raises:
        InputNotFoundError, CheckpointError, DeviceError: as `pdr predict` does, all of them `pdr_cli.errors.PdrError`.
    """
    from pdr_cli.inference import model as inference
    from pdr_cli.runs import folder as runs

    return inference.load(runs.find_model(None if model is None else str(model)), device)
