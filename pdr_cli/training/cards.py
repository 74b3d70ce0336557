"""The model card of a run: data, preset and training, for the header of its model file."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from pdr_cli import __version__, choices
from pdr_cli.data.missing import CellMask
from pdr_cli.runs import inputs, modelfile
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.schema import Config
from pdr_cli.training.prepare import Measured, Prepared, files_read, periods_seen
from pdr_cli.training.state import Position
from pdr_cli.training.validation import best
from pdr_cli.training.warm_start import WarmStart


def card_of(
    config: Config, prepared: Prepared, measured: Measured, start: WarmStart, cycles: tuple[int, ...] = ()
) -> ModelCard:
    """The card of a run that begins; hashes the data files."""
    series = prepared.series[0]
    return ModelCard(
        config=config,
        kind=series.attrs["kind"],
        variables=series.attrs["variables"],
        size=prepared.size,
        y=modelfile.side_of(series, "y"),
        x=modelfile.side_of(series, "x"),
        places=modelfile.places_of(series),
        mapping=modelfile.mapping_of(series),
        step=prepared.step,
        scaling=measured.scaling,
        limits=measured.limits,
        bounds=measured.bounds,
        conventions=series.attrs.get("conventions", {}),
        cycles=cycles,
        covariates=measured.covariates,
        land=None if prepared.missing is None else CellMask.of(prepared.missing.never_observed),
        seen=periods_seen(prepared),
        data=files_read(prepared),
        training={
            "pdr": __version__,
            "torch": torch.__version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "split": prepared.split.rule,
            **({"code": code} if (code := choices.sources(config.model)) else {}),
            **start.as_training(),
        },
    )


def with_best(card: ModelCard, position: Position, device: torch.device) -> ModelCard:
    """The card of the best model so far, or of the anchor that takes its place."""
    found = {"best_step": position.step, "best_seconds": round(position.elapsed, 1), "device": _name(device)}
    if position.anchor_alone:
        found |= {"best_step": position.best_step, "saved": "anchor alone"}
        card = replace(card, config=inputs.alone(card.config, card.config.model.anchor))
    return replace(card, training=card.training | found | best(position))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
