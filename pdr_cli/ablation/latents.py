"""The scores of an ablation of latent spaces: what they lose, and how soon a generator draws well in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pdr_cli.inference.model import Model
from pdr_cli.training.prepare import Prepared
from pdr_cli.verification.latents import Latents

MARKS = (0.125, 0.25, 0.5)  # of the generator's steps, at which its validation is a score
VALIDATIONS = 8  # of a generator
MEMBERS, WINDOWS = 8, 64  # of the CRPS of test data


def scores(vae: Model, members: Model, prepared: Prepared, metrics: Path, reference: Path) -> dict[str, Any]:
    """Scores on test data, and the validation CRPS of the generator at `MARKS`, in network units.

    Args:
        vae: a model with latents.
        members: the same with a generator.
        prepared: the data.
        metrics: of the training of the generator.
        reference: of that of the reference's generator.
    """
    latents = Latents(vae)
    curve = validations(metrics)
    last = at(validations(reference), 1.0) if reference.is_file() else math.nan
    found: dict[str, Any] = {
        "reconstruction": latents.reconstruction(latents.batches(prepared.test)),
        "predictability": latents.predictability(prepared.train, prepared.test),
        "crps": Latents(members).crps(prepared.test, MEMBERS, WINDOWS),
    }
    found |= {f"val crps at {100 * mark:g} %": at(curve, mark) for mark in MARKS}
    return found | {"val crps": at(curve, 1.0), "steps to the first's, share": reached(curve, last)}


Curve = list[tuple[int, float]]  # steps and validation losses


def validations(metrics: Path) -> Curve:
    """The validations of a training."""
    lines = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if line["event"] == "validation"]


def at(curve: Curve, share: float) -> float:
    """The loss of the first validation after this share of the steps."""
    return next(loss for step, loss in curve if step >= share * curve[-1][0])


def reached(curve: Curve, loss: float) -> float | None:
    """The share of the steps after which a validation is no worse than `loss`; None: never."""
    return next((step / curve[-1][0] for step, found in curve if found <= loss), None)
