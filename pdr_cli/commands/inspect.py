"""`pdr inspect`: what a file holds, and whether a preset or a model can use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli import config
from pdr_cli.data import formats, kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import axes
from pdr_cli.data.series import Series, names, read_frames, side, size, units
from pdr_cli.errors import ConfigError, DataError
from pdr_cli.inspection import findings
from pdr_cli.inspection.findings import Finding
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelCard

LOOKED_AT = 64  # frames that are read for the range of values, evenly spaced


def run(path: Path, *, preset: str | None, variables: Sequence[str], as_json: bool) -> None:
    """Print a report of a data file, a folder of clips, or a model.

    Raises:
        DataError: the file cannot be used at all, or not by what `--for` names.
    """
    report = _model(path) if _is_model(path) else _data(path, list(variables))
    if preset is not None:
        report |= _fits(path, preset, list(variables))
    if as_json:
        print(json.dumps(report, default=str))
    else:
        _print(report)
    if preset is not None and report["fits"]["usable"] != "yes":
        raise DataError(f"{preset} cannot use {path}: {report['fits']['finding']}")


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / "model.safetensors").is_file()


def _model(path: Path) -> dict[str, Any]:
    file = runs.find_model(str(path))
    card, weights, _ = modelfile.load(file)
    return {
        "model": str(file),
        "preset": card.config.preset,
        "backbone": card.config.model.backbone,
        "parameters": sum(w.numel() for w in weights.values()),
        "frames": f"{card.config.data.in_steps} → {card.config.data.out_steps}, every {card.step}",
        "variables": {name: str(attrs.get("units", "")) for name, attrs in card.variables.items()},
        "grid": _grid_of_card(card),
        "trained on": ", ".join(d["name"] for d in card.data),
        "seen": _seen(card),
        **{k.replace("_", " "): v for k, v in card.training.items()},
    }


def _grid_of_card(card: ModelCard) -> str:
    sides = [f"{s.name} {s.values[0]:g} to {s.values[-1]:g}" for s in (card.y, card.x) if s is not None]
    return f"{card.size[0]} x {card.size[1]}" + (f" ({', '.join(sides)})" if sides else "")


def _seen(card: ModelCard) -> str:
    if any(identity for _, identity, _, _ in card.seen.entries):  # times are not dates
        return f"{len(card.seen.entries)} {'clips' if kinds.named(card.kind).pictures else 'runs of windows'}"
    parts = []
    for part, _, low, high in card.seen.entries:
        ends = (str(np.datetime64(int(t), "s"))[:16].replace("T", " ") for t in (low, high))
        parts.append(f"{part} {' to '.join(ends)}")
    return "; ".join(parts)


def _data(path: Path, variables: list[str]) -> dict[str, Any]:
    paths = formats.find_inputs([path])
    kind = formats.detect(paths[0])
    report: dict[str, Any] = {"file": str(path), "format": kind, "bytes": sum(map(_bytes, paths))}
    fields = kind in ("netcdf", "zarr")
    if fields and not variables:
        found = [axes.summary(formats.open_fields(p)) for p in reversed(paths)]
        report["variables"] = {k: v for one in found for k, v in one.items()}
        variables = [n for n, v in report["variables"].items() if v["gridded"] == "yes"]
    # Variables of different grids cannot be one series; each is described by itself.
    described = [[v] for v in variables] if fields and variables else [variables]
    try:
        report["series"] = [entry for chosen in described for entry in _series(paths, chosen)]
    except DataError as error:
        if kind not in ("netcdf", "zarr", "npz", "windows"):
            raise
        report["finding"] = str(error)
    return report


def _bytes(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(p.stat().st_size for p in inside if p.is_file())


def _series(paths: list[Path], variables: list[str]) -> list[dict[str, Any]]:
    opened = formats.open_series(paths, formats.ReadOptions(variables))
    # Thousands of sequences are described by a frame or two each.
    looked_at = max(2, LOOKED_AT * 8 // max(len(opened), 8))
    return [_describe(s, looked_at) for s in opened]


def _describe(series: Series, looked_at: int) -> dict[str, Any]:
    times = series.time.values
    height, width = size(series)
    chosen = np.unique(np.linspace(0, len(times) - 1, looked_at).round().astype(int))
    frames = np.concatenate([read_frames(series, i, i + 1) for i in chosen])
    missing = int(np.isnan(frames).sum())
    entry: dict[str, Any] = {
        "channels": dict(zip(names(series), units(series), strict=True)),
        "grid": f"{height} x {width}",
        **{d: _ends(side(series, d)) for d in ("y", "x") if side(series, d) is not None},
        "times": f"{len(times)}, {time_axis.label(times[0])} to {time_axis.label(times[-1])}",
    }
    if "part" in series.attrs:
        entry["part"] = series.attrs["part"]
    if len(times) > 1:
        step = time_axis.find_step(times, str(series.attrs["files"][0]))
        runs_ = time_axis.segments(times, step)
        entry["step"] = str(step)
        if "window" in series.attrs:
            entry["windows"] = f"{len(runs_)} of {series.attrs['window']} frames, cut beforehand"
        else:
            entry["gaps"] = len(runs_) - 1
            entry["longest run"] = max(high - low for low, high in runs_)
    with np.errstate(all="ignore"):
        finite = frames[np.isfinite(frames)]
    if finite.size:
        entry["values"] = f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    entry["missing"] = f"{100 * missing / frames.size:.1f} %" + (
        "" if len(chosen) == len(times) else f" of {len(chosen)} frames"
    )
    return entry


def _ends(coordinate: Any) -> str:
    values = coordinate.values
    return f"{coordinate.name} {values[0]:g} to {values[-1]:g}"


def _fits(path: Path, preset: str, variables: list[str]) -> dict[str, Any]:
    """Whether a preset or model can use the file: everything found, the first thing that stops it, or what it would use."""
    try:
        if preset in config.preset_names() or preset.endswith(".toml"):
            found = _by_preset(path, preset, variables)
        else:
            found = [Finding("ok", _by_model(path, preset))]
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


def _by_preset(path: Path, preset: str, variables: list[str]) -> list[Finding]:
    overrides = [f"data.variables={','.join(variables)}"] if variables else []
    return findings.of(config.load(preset, overrides), formats.find_inputs([path]))


def _by_model(path: Path, model: str) -> str:
    from pdr_cli.data import windows
    from pdr_cli.inference import model as inference

    trained = inference.load(runs.find_model(model), "cpu")
    series = trained.open(formats.find_inputs([path]))
    for one in series:
        trained.check(one)
        windows.last_window(one, trained.card.config.data.in_steps, trained.card.step)
    return f"forecasts {trained.card.config.data.out_steps} steps of {trained.card.step} after {_last(series[0])}"


def _last(series: Series) -> str:
    return time_axis.label(series.time.values[-1])


def _print(report: dict[str, Any], indent: int = 0) -> None:
    for key, value in report.items():
        pad = "  " * indent
        if key == "findings":
            print(key)
            findings.show(value)
        elif isinstance(value, dict):
            print(f"{pad}{key}")
            _print(value, indent + 1)
        elif isinstance(value, list):
            shown = value if len(value) <= 4 else [value[0], value[-1]]
            for entry in shown:
                print(
                    f"{pad}{key}"
                    + (f" (first and last of {len(value)})" if shown is not value and entry is value[0] else "")
                )
                _print(entry, indent + 1)
        else:
            print(f"{pad}{key:<12} {value}")
