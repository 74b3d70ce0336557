"""Whether a preset or a model can use a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pdr_cli import config
from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series
from pdr_cli.errors import ConfigError, DataError
from pdr_cli.inspection import findings
from pdr_cli.inspection.findings import Finding
from pdr_cli.runs import folder as runs


def of(path: Path, preset: str, reading: ReadOptions) -> dict[str, Any]:
    """Whether a preset or model can use the file: everything found, the first thing that stops it, or what it would use."""
    try:
        if preset in config.preset_names() or preset.endswith(".toml"):
            found = _by_preset(path, preset, reading)
        else:
            found = [Finding("ok", _by_model(path, preset, reading))]
    except ConfigError:
        raise
    except DataError as error:
        found = [Finding("problem", str(error))]
    stops = next((f for f in found if f.level == "problem"), None)
    main = stops or next((f for f in found if "windows to train" in f.what), found[0])
    finding = main.what + (f"; {main.fix}" if main.fix else "")
    return {
        "findings": [f.row() for f in found],
        "fits": {"for": preset, "usable": "no" if stops else "yes", "finding": finding},
    }


def _by_preset(path: Path, preset: str, reading: ReadOptions) -> list[Finding]:
    given = {
        "variables": ",".join(reading.variables),
        "group": reading.group,
        "missing_value": ",".join(reading.missing_values),
        "assume": ",".join(reading.assume.words()),
    }
    overrides = [f"data.{key}={value}" for key, value in given.items() if value]
    return findings.of(config.load(preset, overrides), formats.find_inputs([path]))


def _by_model(path: Path, model: str, reading: ReadOptions) -> str:
    from pdr_cli.data import windows
    from pdr_cli.inference import header
    from pdr_cli.inference.intake import Intake
    from pdr_cli.inference.policy import InputPolicy

    policy = InputPolicy(
        group=reading.group, missing_values=tuple(reading.missing_values), assume=reading.assume.words()
    )
    intake = Intake(header.read_header(runs.find_model(model)), policy)
    data, step = intake.card.config.data, intake.card.step
    series = intake.open(formats.find_inputs([path]))
    for one in series:
        intake.orientation(one)
        windows.last_window(one, data.in_steps, step, intake.default_init(one))
        if intake.card.covariates is not None:
            intake.context(one, intake.observe(one))
    return f"forecasts {data.out_steps} steps of {step} after {_last(series[0], intake.default_init(series[0]))}"


def _last(series: Series, init: int | None) -> str:
    return time_axis.label(series.time.values[-1 if init is None else init])
