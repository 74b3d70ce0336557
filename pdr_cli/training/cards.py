"""The model card of a run: data, preset and training, for the header of its model file."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from pdr_cli import __version__, choices
from pdr_cli.data import places as locations
from pdr_cli.data import series as fields
from pdr_cli.data.grid import Side
from pdr_cli.data.missing import CellMask
from pdr_cli.data.places import PackedField
from pdr_cli.data.series import Series
from pdr_cli.runs import inputs
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
        y=side_of(series, "y"),
        x=side_of(series, "x"),
        places=places_of(series),
        mapping=mapping_of(series),
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


def side_of(series: Series, dim: str) -> Side | None:
    """the coordinate of a series along "y" or "x", for a card."""
    coordinate = fields.side(series, dim)
    if coordinate is None:
        return None
    return Side(str(coordinate.name), tuple(map(float, coordinate.values)), dict(coordinate.attrs))


def places_of(series: Series) -> dict[str, PackedField]:
    """The latitude and longitude of each cell of a series, for a card."""
    return {name: PackedField.of(values) for name, values in locations.of(series).places.items()}


def mapping_of(series: Series) -> dict[str, Any]:
    """The attributes of the grid mapping of a series that place its cells, for a card."""
    mapping = locations.of(series).mapping
    return {key: mapping[key] for key in locations.PROJECTION if key in mapping}
