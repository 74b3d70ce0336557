"""Whether a preset or a model can use a data file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdr_cli import config
from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.errors import ConfigError, DataError
from pdr_cli.inspection import findings
from pdr_cli.inspection.findings import Finding
from pdr_cli.runs import folder as runs


def of(path: Path, preset: str, variables: Sequence[str], group: str = "") -> dict[str, Any]:
    """Whether a preset or model can use the file: everything found, the first thing that stops it, or what it would use."""
    try:
        if preset in config.preset_names() or preset.endswith(".toml"):
            found = _by_preset(path, preset, list(variables), group)
        else:
            found = [Finding("ok", _by_model(path, preset, group))]
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


def _by_preset(path: Path, preset: str, variables: list[str], group: str) -> list[Finding]:
    overrides = [f"data.variables={','.join(variables)}"] if variables else []
    overrides += [f"data.group={group}"] if group else []
    return findings.of(config.load(preset, overrides), formats.find_inputs([path]))


def _by_model(path: Path, model: str, group: str) -> str:
    from pdr_cli.data import windows
    from pdr_cli.inference import model as models
    from pdr_cli.inference.intake import InputPolicy, Intake

    intake = Intake(models.load(runs.find_model(model), "cpu"), InputPolicy(group=group))
    data, step = intake.card.config.data, intake.card.step
    series = intake.open(formats.find_inputs([path]))
    for one in series:
        intake.orientation(one)
        windows.last_window(one, data.in_steps, step)
    return f"forecasts {data.out_steps} steps of {step} after {_last(series[0])}"


def _last(series: Series) -> str:
    return time_axis.label(series.time.values[-1])
