"""Sources of an evaluation: arguments and paths to models, forecast files and the truth."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from pdr_cli.choices import BASELINES
from pdr_cli.data import formats, kinds, limits, suspects
from pdr_cli.data.arrays import Conventions
from pdr_cli.data.formats import datasets, forecasts, zarr
from pdr_cli.data.formats.forecasts import ForecastFile
from pdr_cli.data.series import Series, names
from pdr_cli.data.times import find_step
from pdr_cli.errors import InputNotFoundError, UsageError
from pdr_cli.inference import loading, members
from pdr_cli.inference.intake import Intake, renames
from pdr_cli.inference.loaded import FP32, LoadedModel
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.runs import folder as runs
from pdr_cli.runs import programs
from pdr_cli.system import locks
from pdr_cli.trust import Trust
from pdr_cli.verification import task as tasks
from pdr_cli.verification.studies import TRUTH
from pdr_cli.verification.task import Task


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    Args:
        rename: NAME or NAME=INPUTNAME, as --var gives them.
        kind: of the truth where no model has one; "any": as found.
        resample_fps: frames a second that clips are brought to; 0: as they are, or as the model was trained.
        gray_to_rgb: read a gray clip as red, green and blue alike.
        missing_values: see `ReadOptions`.
        assume: conventions that the truth leaves open, such as `slots=0-23`, see `data/arrays.py`.
        group: group of the truth that holds the fields; "": as in training, or the only one.
        batch: windows that a network sees at once, at most.
        device: see `devices.pick`.
        precision: of the networks, see `Model`.
        trust: see `families.Family.find`.
    """

    rename: Sequence[str] = ()
    kind: str = kinds.ANY
    resample_fps: float = 0
    gray_to_rgb: bool = False
    group: str = ""
    missing_values: Sequence[str] = ()
    assume: Sequence[str] = ()
    batch: int | None = None
    device: str = "auto"
    precision: str = FP32
    trust: Trust | None = None


@dataclass
class Forecasters:
    """Models, and the paths of each forecast file, by name.

    Args:
        groups: names of the models that are one ensemble, by its name.
    """

    models: dict[str, LoadedModel] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def first(self) -> LoadedModel | None:
        """The model that settings are taken from."""
        return next(iter(self.models.values()), None)

    def rename(self, arguments: Sequence[str]) -> dict[str, str]:
        """{variable of the model, or of the truth: name in some of the files} of --var."""
        if self.first is not None:
            return renames(arguments, self.first.card)
        pairs = [argument.partition("=") for argument in arguments]
        return {name: source or name for name, _, source in pairs}

    def read_files(self, series: Series, rename: Mapping[str, str]) -> dict[str, ForecastFile]:
        """The forecast files, opened for the variables of the truth."""
        step = find_step(series.time.values) if series.sizes["time"] > 1 else None
        spacing = step.count if step is not None and step.unit == "s" else None
        return {n: forecasts.read(paths, names(series), rename, spacing) for n, paths in self.files.items()}


def task_of(
    data: xr.Dataset | Sequence[Path],
    forecasters: Sequence[str | LoadedModel],
    reading: Reading,
    *,
    split: str = "test",
    steps: int | None = None,
    protocol: str = "honest",
    drawing: Drawing = DIRECT,
) -> Task:
    """The task of scoring forecasters on data.

    Args:
        data: the truth, an open dataset or files.
        forecasters: as for `find`.
        reading: how both are read.
        split, steps, protocol, drawing: as for `task.build`.

    Raises:
        PdrError: as `find`, `truth` and `task.build`.
    """
    found = find(forecasters, reading)
    with locks.inputs_in_use([] if isinstance(data, xr.Dataset) else data):
        series = truth(data, reading, found)
        _check_values(series, found)
    files = found.read_files(series[0], found.rename(reading.rename))
    made = tasks.build(found.models, files, series, split, steps, protocol, drawing)
    return dataclasses.replace(made, groups=found.groups)


def find(arguments: Sequence[str | LoadedModel], reading: Reading) -> Forecasters:
    """The forecasters that arguments of --model name, or that are loaded already; without any, the default model.

    Raises:
        InputNotFoundError, CheckpointError: no such model, or one that cannot be loaded.
        UsageError: a model for another kind of data.
    """
    found = Forecasters()
    for argument in arguments or [None]:  # type: ignore[list-item]
        if isinstance(argument, LoadedModel):
            found.models[_free(argument.name, found.models, found.files)] = argument
            continue
        paths = _forecast_files(argument)
        if paths:
            found.files[_free(Path(argument).stem, found.models, found.files)] = paths
            continue
        together = [_loaded(path, reading) for path in _model_files(argument)]
        members.check_together(together)
        added = []
        for model in together:
            added.append(_free(model.name, found.models, found.files))
            found.models[added[-1]] = model
        if len(added) > 1:
            found.groups["+".join(added)] = added
    _check_kind(found.models, reading.kind)
    if reading.precision != FP32 and not found.models:
        found_files = f"--precision {reading.precision} is for networks, and the forecasters are files"
        raise UsageError(found_files, way_out="leave it out")
    return found


def _loaded(path: Path, reading: Reading) -> LoadedModel:
    return loading.load(path, reading.device, reading.batch, reading.trust, reading.precision)


def _model_files(argument: str | None) -> list[Path]:
    """The files of the models that one argument of --model names: `a+b+c` are one ensemble, unless a run has that name."""
    try:
        return [runs.find_model(argument)]
    except InputNotFoundError:
        if argument is None or "+" not in argument or Path(argument).exists():
            raise
        return [runs.find_model(name) for name in argument.split("+")]


def truth(data: xr.Dataset | Sequence[Path], reading: Reading, found: Forecasters) -> list[Series]:
    """The truth: a model's variables, or else those that --var names, or those of the first forecast file."""
    group = reading.group or (found.first.card.config.data.group if found.first is not None else "")
    rename = _of_truth(found.rename(reading.rename), data, group)
    if found.first is not None:
        policy = InputPolicy(resample_fps=reading.resample_fps, gray_to_rgb=reading.gray_to_rgb, group=reading.group,
                             missing_values=tuple(reading.missing_values), assume=tuple(reading.assume))  # fmt: skip
        intake = Intake(found.first, policy)
        read = {name: attrs for model in reversed(found.models.values()) for name, attrs in model.card.read.items()}
        return (
            [intake.from_dataset(data, rename, read, truth=True)]
            if isinstance(data, xr.Dataset)
            else intake.open(data, rename, read, truth=True)
        )
    wanted = list(rename)
    if isinstance(data, xr.Dataset):
        opened = [datasets.from_datasets([(data, Path("dataset"))], wanted, rename, reading.missing_values)]
    else:
        options = formats.ReadOptions(
            variables=wanted or _fields_in_both(data, found, reading.group),
            rename=rename,
            resample_fps=reading.resample_fps,
            gray_to_rgb=reading.gray_to_rgb,
            group=reading.group,
            missing_values=reading.missing_values,
            assume=Conventions.parse(reading.assume),
        )
        opened = formats.open_series(data, options)
    return [kinds.with_kind(series, reading.kind) for series in opened]


def _check_values(series: Sequence[Series], found: Forecasters) -> None:
    """Refuse a truth with undeclared missing values; warn of one whose values span far less than those of training."""
    for one in series:
        frames = suspects.sample(one)
        suspects.check(frames, one)
        if found.first is not None and found.first.card.limits is not None:
            limits.warn_of_narrow(frames, one, found.first.card.limits)


def _of_truth(rename: Mapping[str, str], data: xr.Dataset | Sequence[Path], group: str) -> dict[str, str]:
    """Names in the truth: a variable that it has under its own name, and not under the other one, keeps its own."""
    if not rename:
        return {}
    if isinstance(data, xr.Dataset):
        there = set(map(str, data.variables))
    elif formats.of(data[0]).gridded:
        there = {str(n) for path in data for n in formats.open_fields(path, group).variables}
    else:
        return dict(rename)
    bare = {name: (name.partition("@")[0], source.partition("@")[0]) for name, source in rename.items()}
    kept = {name for name, (own, other) in bare.items() if other not in there and own in there}
    return {name: name if name in kept else source for name, source in rename.items()}


def _fields_in_both(paths: Sequence[Path], found: Forecasters, group: str) -> list[str]:
    """Variables of the truth that the first forecast file has too; none where either has no named fields."""
    files = next(iter(found.files.values()), [])
    if not files or not formats.of(paths[0]).gridded:
        return []
    return forecasts.fields_in_both(files[0], paths[0], group)


def _forecast_files(argument: str | None) -> list[Path]:
    """The forecast files that an argument names: a file, a folder or a glob; none if it names a model."""
    if argument is None or argument.endswith(".safetensors") or programs.is_program(argument):
        return []
    path = Path(argument)
    if zarr.is_store(path):
        return [path]
    if path.is_dir():
        fields = formats.outputs(gridded=True)
        return [] if (path / "model.safetensors").exists() else sorted(p for p in path.iterdir() if p.suffix in fields)
    return [path] if path.is_file() else sorted(Path(p) for p in glob.glob(argument))


def _check_kind(loaded: Mapping[str, LoadedModel], kind: str) -> None:
    for name, model in loaded.items():
        if kind not in (kinds.ANY, model.kind.name):
            raise UsageError(f"--kind {kind}: {name} is a model for {model.kind.name}", way_out="leave out --kind")


def _free(name: str, *taken: Container[str]) -> str:
    """A name that no other forecaster has, nor the truth."""
    while name in (TRUTH, *BASELINES.names()) or any(name in t for t in taken):
        name += "'"
    return name
