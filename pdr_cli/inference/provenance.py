"""What a forecast file says about itself: who made it, from what, and by what its numbers are known again."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from pathlib import Path

from pdr_cli import __version__
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf, stored
from pdr_cli.data.series import Series, names, units
from pdr_cli.inference import model as inference
from pdr_cli.inference import request
from pdr_cli.inference.model import Model, Observed


def provenance(trained: Model, series: Series, window: Observed) -> dict[str, str]:
    """Global attributes of a forecast file: who made it, from what, and what it takes to make it again."""
    card = trained.card
    settings = json.dumps(card.config.model_dump(), sort_keys=True).encode()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    command = "pdr " + shlex.join(sys.argv[1:])
    before = str(series.attrs["file_attrs"].get("history", ""))
    times = series.time.values
    preset = card.config.preset
    return {
        "Conventions": "CF-1.11",
        "title": f"Forecast of {', '.join(names(series))} by pdr",
        "institution": str(series.attrs["file_attrs"].get("institution", "not given")),
        "source": f"pdr {__version__} (preset {preset}, {card.config.model.backbone}, model sha256:{trained.sha256[:16]})",
        "references": "Learning Video Dynamics with Predictive Differentiable Rendering, arXiv:2606.31050",
        "comment": f"from {', '.join(Path(f).name for f in series.attrs['files'])}",
        "history": "; ".join([f"{now} pdr {__version__}: {command}", *inference.notes(series), *window.notes])
        + (f"\n{before}" if before else ""),
        "date_created": now,
        "pdr_version": __version__,
        "pdr_checkpoint_sha256": trained.sha256,
        "pdr_config_sha256": hashlib.sha256(settings).hexdigest(),
        "pdr_input_sha256": request.window_sha256(window),
        "pdr_input_window": f"{time_axis.label(times[window.start])}/{time_axis.label(times[window.stop - 1])}",
        "pdr_device": f"{trained.device.type}/{card.config.train.precision}",
    }


def contents(predicted: Series, trained: Model) -> dict[str, str]:
    """Attributes by which `pdr verify` knows the numbers again: their hash, and between what they have to be."""
    frames = predicted.values
    return {
        "pdr_data_sha256": stored.data_sha256([frames[:, i]] for i in range(frames.shape[1])),
        "pdr_plausible": json.dumps(plausible(predicted, trained)),
    }


def plausible(predicted: Series, trained: Model) -> dict[str, list[float]]:
    """Lowest and highest value to believe of each variable that is in the model's units, by what training knew.

    None of them where the input may be beyond that itself, and of models of before it was kept.
    """
    limits, variables = trained.card.limits, trained.card.variables
    if limits is None or trained.repairs.allow_out_of_range:
        return {}
    return {
        cf.legal_name(name): [float(low), float(high)]
        for name, unit, low, high in zip(names(predicted), units(predicted), *limits.bounds(), strict=True)
        if unit == str(variables.get(name, {}).get("units", ""))
    }


def model_name(path: Path) -> str:
    """A model as people name it: the folder of its run, or its file."""
    return str(path.parent) if path.name == "model.safetensors" else str(path)
