"""The global attributes of a forecast: its origin, and the checksums that `pdr verify` compares."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pdr_cli import __version__
from pdr_cli.data import times as time_axis
from pdr_cli.data.bounds import BOUNDED
from pdr_cli.data.covariates import INPUT
from pdr_cli.data.formats import cf, stored
from pdr_cli.data.intervals import without_ends
from pdr_cli.data.missing import ABSURD
from pdr_cli.data.series import Series, names, units
from pdr_cli.data.units import GIVEN
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import Device, LoadedModel
from pdr_cli.inference.observed import Observed
from pdr_cli.system import urls
from pdr_cli.system.names import printable

if TYPE_CHECKING:
    from pdr_cli.runs.modelfile import ModelCard

PDR = "Learning Video Dynamics with Predictive Differentiable Rendering, arXiv:2606.31050"
COVARIATES = "pdr_covariates_sha256"  # attribute of a forecast that has read further variables


def command_line() -> str:
    """The command that runs, for the history of its outputs."""
    return "pdr " + shlex.join(map(urls.without_credentials, sys.argv[1:]))


class Made(Protocol):
    """A model, as its outputs name it."""

    @property
    def card(self) -> ModelCard:
        """Header of the model."""

    @property
    def sha256(self) -> str:
        """Of its file."""

    @property
    def device(self) -> Device:
        """That it runs on."""

    @property
    def precision(self) -> str:
        """Of its arithmetic."""


def provenance(model: LoadedModel, series: Series, window: Observed, command: str) -> dict[str, str]:
    """The origin of a forecast: program, model, input, and all that is needed to make it again."""
    times, config = series.time.values, model.card.config
    title = f"Forecast of {', '.join(names(series))} by pdr"
    made = origin(model, series, title, config.model.backbone, window.notes, command)
    made |= {"pdr_code_sha256": "; ".join(f"{n} {sha}" for n, sha in model.code.items())} if model.code else {}
    between = f"{time_axis.label(times[window.start])}/{time_axis.label(times[window.stop - 1])}"
    made |= {"pdr_input_sha256": window.sha256, "pdr_input_window": between, **model.attributes}
    return {key: printable(value) for key, value in made.items()}


def origin(
    model: Made, series: Series, title: str, network: str, notes: Sequence[str], command: str, reference: str = PDR
) -> dict[str, str]:
    """What every output says: program, model, and the files that it was made from.

    Args:
        model: that made it.
        series: the input.
        title: of the output.
        network: name of the model's network.
        notes: on the input, for the history.
        command: that was given.
        reference: where the method is described.
    """
    card = model.card
    settings = json.dumps(card.config.model_dump(), sort_keys=True).encode()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "Conventions": "CF-1.11",
        "title": title,
        "institution": str(series.attrs["file_attrs"].get("institution", "not given")),
        "source": f"pdr {__version__} (preset {card.config.preset}, {network}, model sha256:{model.sha256[:16]})",
        "references": reference,
        "comment": f"from {', '.join(Path(f).name for f in series.attrs['files'])}",
        "history": _history(series, notes, f"{now} pdr {__version__}: {command}"),
        "date_created": now,
        "pdr_version": __version__,
        "pdr_checkpoint_sha256": model.sha256,
        "pdr_config_sha256": hashlib.sha256(settings).hexdigest(),
        "pdr_device": f"{model.device.type}/{model.precision}",
    }


def of_models(models: Sequence[LoadedModel]) -> dict[str, str]:
    """What tells the models of an ensemble apart; nothing for one."""
    return {"pdr_ensemble_sha256": " ".join(model.sha256 for model in models)} if len(models) > 1 else {}


def of_covariates(intake: Intake, series: Series, window: Observed, steps: int) -> dict[str, str]:
    """The hash of the further variables that a forecast of `steps` frames reads, in the model's units; nothing without any."""
    opened, covariates, T = intake.further_of(series), intake.card.covariates, len(window.times)
    if opened is None or covariates is None:
        return {}
    following = time_axis.following(series.time.values[window.stop - 1], intake.card.step, steps)
    frames = opened.at(np.concatenate([window.times, following]))
    frames[T:, [variable.role == INPUT for variable in covariates.variables.values()]] = np.nan
    return {COVARIATES: hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()}


def _history(series: Series, notes: Sequence[str], line: str) -> str:
    before = str(series.attrs["file_attrs"].get("history", ""))
    line = "; ".join([line, *_conversions(series), *notes])
    return f"{line}\n{before}" if before else line


def _conversions(series: Series) -> list[str]:
    """The conversions of a series when it was opened, in words."""
    units_of = dict(zip(names(series), units(series), strict=True))
    given = series.attrs.get(GIVEN, {})
    found = [f"{name} converted from {unit} to {units_of[name]} and back" for name, unit in given.items()]
    found += [f"regridded ({series.attrs['regridded']})"] if "regridded" in series.attrs else []
    return found + ([f"resampled to {series.attrs['resampled']}"] if "resampled" in series.attrs else [])


def checksums(forecast: Series, intake: Intake) -> dict[str, str]:
    """The hash of a forecast's numbers, and the range that they must lie in."""
    return {stored.HASH: numbers_sha256(forecast), "pdr_plausible": json.dumps(plausible(forecast, intake))}


def numbers_sha256(series: Series) -> str:
    """`stored.data_sha256` of the channels of a series."""
    frames = series.values
    return stored.data_sha256([frames[..., i, :, :]] for i in range(frames.shape[-3]))


def plausible(forecast: Series, intake: Intake) -> dict[str, list[float]]:
    """The range that each variable of a forecast lies in: its bounds, and the range learned in training.

    The learned range is left out if the input may lie outside of it, for models without one, and in other units than the
    model's. Variables without any range are left out.
    """
    learned, bounded = _learned(without_ends(forecast), intake), _bounded(forecast)
    ranges = {name: [*learned.get(name, []), *bounded.get(name, [])] for name in names(forecast)}
    return {cf.legal_name(n): [max(r[::2]), min(r[1::2])] for n, r in ranges.items() if r}


def _learned(forecast: Series, intake: Intake) -> dict[str, list[float]]:
    limits, variables = intake.card.limits, intake.card.variables
    if limits is None or intake.policy.allow_out_of_range:
        return {}
    return {
        name: [float(low), float(high)]
        for name, unit, low, high in zip(names(forecast), units(forecast), *limits.bounds(), strict=True)
        if unit == str(variables.get(name, {}).get("units", ""))
    }


def _bounded(forecast: Series) -> dict[str, list[float]]:
    """The bounds of each variable, as numbers that JSON has."""
    if BOUNDED not in forecast.attrs:
        return {}
    ends = (np.clip(side.ravel(), -ABSURD, ABSURD).tolist() for side in forecast.attrs[BOUNDED].ends())
    return {name: [low, high] for name, low, high in zip(names(forecast), *ends, strict=True)}
