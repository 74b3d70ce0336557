"""What a data file or a model holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import formats, kinds, suspects
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions, axes, gaussianset
from pdr_cli.data.missing import without_absurd
from pdr_cli.data.scenes import KIND
from pdr_cli.data.series import Series, names, read_frames, side, size, units
from pdr_cli.errors import DataError
from pdr_cli.inspection import gaussians, scenes
from pdr_cli.runs import exported, modelfile, programs
from pdr_cli.runs import folder as runs
from pdr_cli.runs.modelfile import Header, ModelCard, ModelFile
from pdr_cli.system.urls import RemotePath

LOOKED_AT = 64  # frames that are read for the range of values, evenly spaced


def of(path: Path, reading: ReadOptions) -> dict[str, Any]:
    """What a data file, a folder of clips or a model holds, as nested dictionaries.

    Raises:
        DataError: the file cannot be used at all.
    """
    return _model(path) if _is_model(path) else _data(path, reading)


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or programs.is_program(path) or (path / "model.safetensors").is_file()


def _model(path: Path) -> dict[str, Any]:
    file = runs.find_model(str(path))
    read = exported.read_header(file) if programs.is_program(file) else modelfile.read(file)
    card = read.card
    return {
        "model": str(file),
        "preset": card.config.preset,
        "backbone": card.config.model.backbone,
        **_size(read, file),
        "frames": f"{card.config.data.in_steps} → {card.config.data.out_steps}, every {card.step}",
        "variables": {name: str(attrs.get("units", "")) for name, attrs in card.variables.items()},
        **({"targets": ", ".join(card.config.data.targets)} if card.hidden is not None else {}),
        **({} if card.covariates is None else {"covariates": ", ".join(card.covariates.words(card.step))}),
        "bounds": _bounds(card),
        "grid": _grid_of_card(card),
        "trained on": ", ".join(d["name"] for d in card.data),
        "seen": _seen(card),
        "calibration": "none" if read.calibration is None else read.calibration.words(),
        **({"conventions": ", ".join(f"{k}={v}" for k, v in card.conventions.items())} if card.conventions else {}),
        **{k.replace("_", " "): v for k, v in card.training.items()},
    }


def _size(read: Header, file: Path) -> dict[str, Any]:
    """The number of weights of a model; of an exported program what it is, in words."""
    if isinstance(read, ModelFile):
        return {"parameters": sum(w.numel() for w in read.weights.values())}
    if read.program is None:
        return {}
    runtime, about = programs.RUNTIMES[file.suffix.lower()], read.program
    return {"program": f"{about.precision}, for {runtime}, of the model with SHA-256 {about.model_sha256[:16]}"}


def _grid_of_card(card: ModelCard) -> str:
    sides = [f"{s.name} {s.values[0]:g} to {s.values[-1]:g}" for s in (card.y, card.x) if s is not None]
    return f"{card.size[0]} x {card.size[1]}" + (f" ({', '.join(sides)})" if sides else "")


def _bounds(card: ModelCard) -> dict[str, str]:
    words = ["none"] * len(card.variables) if card.bounds is None else card.bounds.words()
    return dict(zip(card.variables, words, strict=True))


def _seen(card: ModelCard) -> str:
    if any(identity for _, identity, _, _ in card.seen.entries):  # times are not dates
        return f"{len(card.seen.entries)} {_units(card.kind)}"
    parts = []
    for part, _, low, high in card.seen.entries:
        ends = (str(np.datetime64(int(t), "s"))[:16].replace("T", " ") for t in (low, high))
        parts.append(f"{part} {' to '.join(ends)}")
    return "; ".join(parts)


def _units(kind: str) -> str:
    """What the entries of `seen` are."""
    if kind == KIND:
        return "scenes"
    return "clips" if kinds.named(kind).pictures else "runs of windows"


def _data(path: Path, reading: ReadOptions) -> dict[str, Any]:
    variables = list(reading.variables)
    paths = formats.find_inputs([path])
    form = formats.of(paths[0])
    whole = str(paths[0]) if isinstance(paths[0], RemotePath) else str(path)
    report: dict[str, Any] = {"file": whole, "format": form.name, "bytes": sum(map(_bytes, paths))}
    if scenes.is_scenes(paths[0]):
        return report | scenes.describe(paths[0])
    if gaussianset.is_set(paths[0]):
        return report | gaussians.describe(paths[0])
    if form.gridded and not variables:
        found = [axes.summary(formats.open_fields(p, reading.group)) for p in reversed(paths)]
        report["variables"] = {k: v for one in found for k, v in one.items()}
        variables = [n for n, v in report["variables"].items() if v["gridded"] == "yes"]
    # Variables of different grids cannot be one series; each is described by itself.
    described = [[v] for v in variables] if form.gridded and variables else [variables]
    try:
        opened = [replace(reading, variables=chosen) for chosen in described]
        report["series"] = [entry for options in opened for entry in _series(paths, options)]
    except DataError as error:
        if not form.gridded and form.name not in ("npz", "windows"):
            raise
        report["finding"] = str(error)
    return report


def _bytes(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(p.stat().st_size for p in inside if p.is_file())


def _series(paths: list[Path], options: ReadOptions) -> list[dict[str, Any]]:
    opened = formats.open_series(paths, options)
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
    entry |= _of_clip(series) | _of_steps(series)
    with np.errstate(all="ignore"):
        finite = frames[np.isfinite(frames)]
    if finite.size:
        entry["values"] = f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    entry["missing"] = f"{100 * missing / frames.size:.1f} %" + (
        "" if len(chosen) == len(times) else f" of {len(chosen)} frames"
    )
    if found := _notes(frames, series):
        entry["note"] = found
    return entry


def _of_steps(series: Series) -> dict[str, Any]:
    """The part of a benchmark, the step of the time axis, its days, gaps and longest run."""
    times, about = series.time.values, series.attrs
    entry: dict[str, Any] = {"part": about["part"]} if "part" in about else {}
    if len(times) < 2:
        return entry
    step = time_axis.find_step(times, str(about["files"][0]))
    runs_ = time_axis.segments(times, step)
    entry["step"] = str(step)
    if "slots" in about.get("conventions", {}):
        entry["days"] = _days(series)
    if "window" in about:
        return entry | {"windows": f"{len(runs_)} of {about['window']} frames, cut beforehand"}
    return entry | {"gaps": len(runs_) - 1, "longest run": max(high - low for low, high in runs_)}


def _days(series: Series) -> str:
    """The days of a traffic grid, and how many of them are not whole."""
    slots = int(series.attrs["file_attrs"]["slots_per_day"])
    _, counts = np.unique(series.time.values.astype("datetime64[D]"), return_counts=True)
    return f"{len(counts)}, {int((counts < slots).sum())} of them with fewer than {slots} slots"


def _of_clip(series: Series) -> dict[str, str]:
    """What the container of a clip says, the rate as fitted to all its stamps, and what was assumed."""
    about = series.attrs
    entry = {"container": about["container"], "rate": f"{about['rate']} frames a second"} if "rate" in about else {}
    return entry | ({"assumed": "; ".join(about["assumed"])} if about.get("assumed") else {})


def _notes(frames: np.ndarray, series: Series) -> str:
    """What a user should know of the values [T, C, H, W] before training on them; "" if nothing."""
    marks = [] if suspects.is_trusted(series) else suspects.undeclared(without_absurd(frames))
    notes = [f"{100 * s.share:.2g} % are {s.value:.7g}: missing values? (--missing-value={s.value:.7g})" for s in marks]
    sums = suspects.restarts(series) if series.attrs.get("may_lack") and not marks else []
    return "; ".join(notes + [f"{name} is a sum that starts again each day" for name in sums])


def _ends(coordinate: Any) -> str:
    values = coordinate.values
    return f"{coordinate.name} {values[0]:g} to {values[-1]:g}"
