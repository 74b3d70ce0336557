"""`pdr evaluate`: score models, files and baselines on the same windows; a table, the numbers, a page."""

from __future__ import annotations

import glob
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli import __version__
from pdr_cli.commands import inputs, tables
from pdr_cli.data import formats, kinds
from pdr_cli.data.formats import forecasts, zarr
from pdr_cli.data.series import Series, names
from pdr_cli.errors import InputNotFoundError, UsageError
from pdr_cli.inference import model as inference
from pdr_cli.inference.model import Model, Repairs
from pdr_cli.runs import folder as runs
from pdr_cli.system import atomic, hashes, locks
from pdr_cli.system.logs import log, progress
from pdr_cli.verification import baselines, evaluation, scores
from pdr_cli.verification.evaluation import ANALYSES, Options, Result, Task

AGAINST = "persistence,climatology"


@dataclass(frozen=True)
class Request:
    """The options of `pdr evaluate`; see its --help."""

    models: Sequence[str]
    split: str
    against: Sequence[str] | None
    metrics: Sequence[str]
    convention: str
    protocol: str
    steps: int | None
    batch: int | None
    rename: Sequence[str]
    lpips: Path | None
    raft: Path | None
    efficiency: bool
    output: Path | None
    plot: Path | None
    report: Path | None
    as_json: bool
    device: str
    resample_fps: float = 0
    gray_to_rgb: bool = False


def run(arguments: Sequence[str], asked: Request) -> None:
    """Score; see `pdr evaluate --help` for the options."""
    paths = formats.find_inputs(arguments)
    _check(asked, paths)
    loaded, foreign = _load(asked)
    with locks.inputs_in_use(paths):
        series = _truth(paths, asked, next(iter(loaded.values()), None), [f for many in foreign.values() for f in many])
    given = {name: forecasts.read(found, names(series[0])) for name, found in foreign.items()}
    job = evaluation.task(loaded, given, series, asked.split, asked.steps, asked.protocol)
    options = _options(job, asked, series[0])
    with progress("evaluating") as bar:
        result = evaluation.evaluate(job, options, bar)
    document = result.document
    document["card"] = _card(job, asked, paths) | document["card"]
    if asked.efficiency:
        from pdr_cli.verification import efficiency

        document["efficiency"] = {name: efficiency.measure(model) for name, model in loaded.items()}
    _write(document, result, job, asked)
    if asked.as_json:
        print(json.dumps(_plain(document)))
    else:
        tables.show(document)


def _check(asked: Request, paths: Sequence[Path]) -> None:
    """Refuse what cannot be written, or read, before anything is computed."""
    for target in (asked.output, asked.plot, asked.report):
        if target is not None:
            atomic.check_output(target, paths)
    if asked.output is not None and asked.output.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"scores go to .json or .csv, not {asked.output.suffix or 'a name without suffix'!r}")
    if asked.report is not None and asked.report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report writes a page of its own: name it .html, not {asked.report.name}")
    for flag, weights in (("--lpips-weights", asked.lpips), ("--raft-weights", asked.raft)):
        if weights is not None and not weights.is_file():
            raise InputNotFoundError(f"{flag} {weights}: no such file")
    if asked.protocol not in ("honest", "openstl"):
        raise UsageError(f"--protocol {asked.protocol}: use honest or openstl")
    scores.kinds(asked.convention)


def _load(asked: Request) -> tuple[dict[str, Model], dict[str, list[Path]]]:
    """Models, and the files of each other forecast, by a short name each."""
    loaded: dict[str, Model] = {}
    foreign: dict[str, list[Path]] = {}
    for argument in asked.models or [None]:  # type: ignore[list-item]
        found = _forecast_files(argument)
        if found:
            foreign[_name(Path(argument).stem, loaded, foreign)] = found
            continue
        path = runs.find_model(argument)
        name = path.parent.name if path.name == "model.safetensors" else path.stem
        repairs = Repairs(resample_fps=asked.resample_fps, gray_to_rgb=asked.gray_to_rgb)
        loaded[_name(name, loaded, foreign)] = inference.load(path, asked.device, repairs, batch=asked.batch)
    return loaded, foreign


def _forecast_files(argument: str | None) -> list[Path]:
    """The forecast files that an argument names: a file, a folder or a glob; none if it names a model."""
    if argument is None or argument.endswith(".safetensors"):
        return []
    path = Path(argument)
    if zarr.is_store(path):
        return [path]
    if path.is_dir():
        return [] if (path / "model.safetensors").exists() else sorted((*path.glob("*.nc"), *path.glob("*.zarr")))
    return [path] if path.is_file() else sorted(Path(p) for p in glob.glob(argument))


def _name(name: str, *taken: dict[str, Any]) -> str:
    """A name that no other forecaster has, nor the truth."""
    while name in ("truth", *baselines.known_names()) or any(name in t for t in taken):
        name += "'"
    return name


def _truth(paths: Sequence[Path], asked: Request, first: Model | None, foreign: Sequence[Path] = ()) -> list[Series]:
    """What happened: a model's variables, or else those that --var names, or those of the first forecast file."""
    if first is not None:
        return first.open(paths, inputs.renames(asked.rename, list(first.card.variables)))
    pairs = [argument.partition("=") for argument in asked.rename]
    wanted = [name for name, _, _ in pairs]
    if not wanted and foreign and formats.detect(paths[0]) in ("netcdf", "zarr"):
        wanted = forecasts.fields_in_both(foreign[0], paths[0])
    options = formats.ReadOptions(
        variables=wanted,
        rename={name: source or name for name, _, source in pairs},
        resample_fps=asked.resample_fps,
        gray_to_rgb=asked.gray_to_rgb,
    )
    return formats.open_series(paths, options)


def _options(job: Task, asked: Request, series: Series) -> Options:
    analyses = [m for m in asked.metrics if m in ANALYSES]
    metrics = [m for m in asked.metrics if m not in ANALYSES] or _default_metrics(asked, series)
    if asked.report is not None:
        analyses = list(dict.fromkeys([*analyses, "spectra", "calibration"]))
    against = asked.against
    if against is None:
        against = AGAINST.split(",") if job.first is not None else ["persistence"]
    return Options(metrics, against, asked.convention, analyses, asked.lpips, asked.raft)


def _default_metrics(asked: Request, series: Series) -> list[str]:
    kind = kinds.of(series)
    chosen = kind.published_scores if asked.convention == "openstl" else kind.scores
    return [*chosen, "lpips"] if kind.pictures and asked.lpips is not None else list(chosen)


def _card(job: Task, asked: Request, paths: Sequence[Path]) -> dict[str, Any]:
    """Everything it takes to know how the numbers came about."""
    import torch

    first = job.first
    return {
        "command": "pdr " + shlex.join(sys.argv[1:]),
        "pdr": __version__,
        "torch": torch.__version__,
        "device": _device(first),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": [p.name for p in paths[:20]] + ([f"and {len(paths) - 20} more"] if len(paths) > 20 else []),
        "models": {name: _model_card(model) for name, model in job.models.items()},
        "files": {
            name: {"file": str(f.paths[0]), "layout": f.layout, "sha256": hashes.sha256(f.paths[0])}
            for name, f in job.files.items()
        },
    }


def _device(model: Model | None) -> str:
    import torch

    if model is None or model.device.type != "cuda":
        return "cpu"
    return torch.cuda.get_device_name(model.device)


def _model_card(model: Model) -> dict[str, Any]:
    config = model.card.config
    return {
        "file": str(model.path),
        "sha256": model.sha256,
        "preset": config.preset,
        "backbone": config.model.backbone,
        "fusion": config.model.fusion,
        "parameters": sum(p.numel() for p in model.network.parameters()),
    }


def _write(document: dict[str, Any], result: Result, job: Task, asked: Request) -> None:
    if asked.output is not None:
        as_csv = asked.output.suffix.lower() == ".csv"
        text = tables.as_csv(document) if as_csv else json.dumps(_plain(document), indent=1) + "\n"
        atomic.write_text(asked.output, text)
    if asked.plot is not None:
        from pdr_cli.drawing import pictures

        pictures.skill(asked.plot, document)
    if asked.report is not None:
        from pdr_cli.drawing import page

        written = page.write(asked.report, document, _cases(result, job))
        log.info("report: %s and %d pictures beside it", written[0], len(written) - 1)


def _cases(result: Result, job: Task) -> list[Any]:
    """The best, the median and the worst window of the first model."""
    from pdr_cli.drawing import page

    if job.first is None:
        return []
    name, out = next(iter(job.models)), []
    for label, index in result.typical().items():
        number, start = (int(v) for v in job.windows.places[index])
        start += job.windows.in_steps - job.first.card.config.data.in_steps
        score, steps = float(result.by_window[index]), job.windows.out_steps
        out.append(page.case_of(job.first, job.series[number], start, label, score, name=name, steps=steps))
    return out


def _plain(value: Any) -> Any:
    """JSON has no word for NaN and infinity: null stands for them."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
