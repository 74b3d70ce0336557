"""The Python API: what the commands do, with paths and datasets in, and datasets and documents out. Nothing is printed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf, pointfile
from pdr_cli.data.series import Series
from pdr_cli.drawing import runcard
from pdr_cli.errors import UsageError
from pdr_cli.inference import dataset, loading
from pdr_cli.inference import intake as intakes
from pdr_cli.inference.between import Between
from pdr_cli.inference.finer import CELLS, Finer
from pdr_cli.inference.forecast import forecast, lead_steps
from pdr_cli.inference.hindcast import Hindcast
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.intervals import Intervals
from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.inference.members import Drawing
from pdr_cli.inference.plan import plan
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.runs import folder as runs
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.system import locks
from pdr_cli.training import run as training
from pdr_cli.training.prepare import find_files
from pdr_cli.training.request import UNLIMITED, Experiment
from pdr_cli.training.run import TrainingRequest
from pdr_cli.trust import Trust
from pdr_cli.verification import evaluation, sources
from pdr_cli.verification.document import Document
from pdr_cli.verification.evaluation import Options
from pdr_cli.verification.sources import Reading

Paths = str | Path | Sequence[str | Path]  # files, folders or globs
LENGTHS = {key: f"train.{key}" for key in UNLIMITED}  # of a training
COMMAND = "pdr_cli.predict"  # in the history of a forecast


@dataclass(frozen=True)
class Model:
    """A trained model, ready to forecast.

    Args:
        loaded: header, climatology and network; `loaded.network` is the torch module, which an exported program has not.
    """

    loaded: LoadedModel

    @property
    def path(self) -> Path:
        """The model file."""
        return self.loaded.path

    @property
    def config(self) -> Config:
        """The resolved preset of the training."""
        return self.loaded.card.config

    @property
    def variables(self) -> list[str]:
        """Names of the variables that the model forecasts, and but for targets observes."""
        return list(self.loaded.card.variables)

    def predict(
        self,
        data: xr.Dataset | Paths,
        *,
        init: object = None,
        every_init: bool = False,
        steps: int | None = None,
        policy: InputPolicy | None = None,
        rename: Mapping[str, str] | None = None,
        every: float | None = None,
        finer: Finer = CELLS,
        **uncertainty: Any,
    ) -> xr.Dataset:
        """Forecast what follows the data.

        Args:
            data: an open dataset with the model's variables, or files.
            init: time of the last observation to use, such as "2020-01-10T12:00"; default: the last one.
            every_init: forecast from every possible init instead.
            steps: frames to forecast; default: the horizon of the training.
            policy: which defects of the data are mended; default: none, they are refused.
            rename: {variable of the model: its name in the data}.
            every: share of a step, such as 0.5, at which frames follow each other, of a model that is continuous in time.
            finer: where, such as `Finer(scale=4)`, `Finer(size=(721, 1440))` or `Finer(points=Path("stations.csv"))`, by
                interpolation; default: the cells of the grid. It is for one direct forecast.
            uncertainty: `members` of an ensemble, which a model that draws gives, and the `seed` from which they are drawn;
                or `interval`, the shares of the truths that prediction intervals are to hold, such as (0.8, 0.95), which with
                `adaptive` and `every_init` follow how those of earlier inits held.

        Returns:
            The Dataset that xarray opens from the NetCDF file of `pdr predict`: the variables by their own names on
            (time, lat, lon) or the data's own dims, with `forecast_reference_time` and `forecast_period`, of members with
            the dimension `realization`; the ends of intervals are variables such as `air_lower_80`.

        Raises:
            PdrError: as `pdr predict`.
        """
        if every_init and init is not None:
            raise UsageError("init is for one forecast, every_init for all", way_out="leave out one of the two")
        drawing, intervals = _uncertain(**uncertainty)
        between = Between.parse(every)
        if between.parts > 1 and (every_init or drawing.count or intervals.shares):
            raise UsageError(
                "every is for one direct forecast", way_out="leave out every, or every_init, members and interval"
            )
        if finer.option and (every_init or drawing.count or intervals.shares or between.parts > 1):
            raise UsageError(
                "finer is for one direct forecast", way_out="leave it out, or every_init, members, interval and every"
            )
        between.check(self.loaded)
        if intervals.adaptive and not every_init:
            raise UsageError("adaptive is for the intervals of a hindcast", way_out="add every_init=True")
        intake, drawing = Intake(self.loaded, policy or InputPolicy(), intervals), drawing.of(self.loaded)
        intervals.check(self.loaded, lead_steps(self.loaded, steps))
        with _opened(intake, data, rename) as series:
            if every_init:
                return self._hindcast(Hindcast(plan(intake, series, steps), self.loaded, intake, drawing))
            at = None if init is None else time_axis.parse(str(init), series.time.values)
            made = forecast(self.loaded, intake, series, at, steps, drawing, between, finer)
        frames, attributes = made.written, made.attributes(COMMAND)
        if finer.points is not None:
            return xr.decode_cf(pointfile.to_dataset(frames, attributes)).load()
        return dataset.of_layout(cf.forecast_layout(frames, attributes), frames.values)

    def _hindcast(self, made: Hindcast) -> xr.Dataset:
        layout = made.layout(made.attributes(COMMAND))
        return dataset.of_layout(layout, made.frames(0, len(made.plan.inits)))


def _uncertain(
    members: int = 0, seed: int = 0, interval: Sequence[float] = (), adaptive: bool = False
) -> tuple[Drawing, Intervals]:
    """The members and intervals of a forecast.

    Raises:
        UsageError: both at once, shares that are none, or no interval that could be adaptive.
    """
    if members and interval:
        raise UsageError("an interval is around the direct forecast", way_out="leave out members or interval")
    text = ",".join(map(str, interval)) if interval else None
    return Drawing(members, seed), Intervals.parse(text, adaptive)


def train(
    data: xr.Dataset | Paths = (),
    *,
    preset: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    variables: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    device: str = "auto",
) -> RunFolder:
    """Train a model, as `pdr train` does. The code of others that `settings` name may run.

    Args:
        data: an open dataset, or files, folders or globs; default: the files of the preset.
        preset: name or TOML file; None: with `resume`, the configuration of the run.
        settings: {"table.key" or "key": value}, such as {"train.lr": 1e-3, "steps": 1000}. A length of the training
            (epochs, steps, budget, cpu_budget) replaces all limits of the preset.
        variables: to observe and forecast; default: those of the preset.
        out: run folder; default: a new one under runs/.
        resume: continue the run in `out`.
        init_from: model file, run or OpenSTL weights to start from.
        device: as for `load`.

    Returns:
        The run folder; `load(folder.path)` loads its model.

    Raises:
        PdrError: as `pdr train`.
    """
    folder = None if out is None else Path(out)
    name = None if preset is None else str(preset)
    experiment = Experiment(name, _files(data), variables, *_options(settings or {}))
    request = TrainingRequest(
        experiment.resolve(folder, resume),
        folder,
        device,
        resume="last" if resume else None,
        init_from=None if init_from is None else Path(init_from),
        dataset=data if isinstance(data, xr.Dataset) else None,
        trust=experiment.trust(),
    )
    return _trained(request)


def fine_tune(
    model: str | Path,
    data: xr.Dataset | Paths,
    *,
    settings: Mapping[str, Any] | None = None,
    variables: Sequence[str] = (),
    out: str | Path | None = None,
    device: str = "auto",
) -> RunFolder:
    """Continue from a trained model on other data of the same kind, as `pdr train --fine-tune` does.

    Args:
        model: run folder, name of a run, model file, or demo:NAME; its settings and weights take the place of a preset.
        data: an open dataset, or files, folders or globs.
        settings: as for `train`; without them a quarter of the model's learning rate, and none of its dates.
        variables: to observe and forecast; default: those of the model.
        out: run folder; default: a new one under runs/.
        device: as for `load`.

    Returns:
        The run folder.

    Raises:
        UsageError: a model without a network.
        PdrError: as `train`; also where the model does not fit the data.
    """
    start, folder = runs.find_model(str(model)), None if out is None else Path(out)
    dataset = data if isinstance(data, xr.Dataset) else None
    own: dict[str, Any] = {} if dataset is None else {"data.paths": []}  # of the run, whose data have no file
    experiment = Experiment(None, _files(data), variables, *_options(own | dict(settings or {})), start)
    config, trust = experiment.resolve(folder), experiment.trust()
    return _trained(TrainingRequest(config, folder, device, init_from=start, dataset=dataset, trust=trust))


def _files(data: xr.Dataset | Paths) -> Sequence[str | Path]:
    return [] if isinstance(data, xr.Dataset) else _listed(data)


def _trained(request: TrainingRequest) -> RunFolder:
    run = training.train(request)

    def truth() -> xr.Dataset | Sequence[Path]:
        return find_files(run.config) if request.dataset is None else request.dataset

    runcard.write(run.folder, truth, run.config.train.card_windows, request.device, request.trust)
    return run.folder


def _options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The lengths of a training among settings, by full key, and all settings as `key=value`."""
    chosen = {LENGTHS.get(key, key): value for key, value in settings.items()}
    lengths = {key: value for key, value in chosen.items() if key in LENGTHS.values()}
    return lengths, [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in chosen.items()]


def load(
    model: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    trust_code: bool = False,
    precision: str = "fp32",
) -> Model:
    """Load a trained model.

    Args:
        model: a run folder, a `model.safetensors`, an exported program, a run name; default: `$PDR_MODEL`, or else the newest
            finished run.
        device: "auto", "cpu" or "cuda[:N]".
        batch: largest number of windows in one pass of the network; default: no limit.
        trust_code: run the code of others that the model names (docs/extending.md).
        precision: of the network's arithmetic, "fp32" or "bf16".

    Raises:
        InputNotFoundError, CheckpointError, DeviceError, UntrustedCodeError, UsageError: as `pdr predict`.
    """
    path = runs.find_model(None if model is None else str(model))
    return Model(loading.load(path, device, batch, Trust(trust_code), precision))


def predict(
    data: xr.Dataset | Paths,
    model: Model | str | Path | None = None,
    *,
    init: object = None,
    every_init: bool = False,
    steps: int | None = None,
    policy: InputPolicy | None = None,
    rename: Mapping[str, str] | None = None,
    device: str = "auto",
    **uncertainty: Any,
) -> xr.Dataset:
    """Forecast what follows the data: `load(model, device).predict(data, ...)`; `model` may be loaded already.

    `uncertainty`: `members`, `seed`, `interval` and `adaptive`, and further options of `Model.predict`.
    """
    loaded = model if isinstance(model, Model) else load(model, device)
    options: dict[str, Any] = {
        "init": init,
        "every_init": every_init,
        "steps": steps,
        "policy": policy,
        "rename": rename,
    }
    return loaded.predict(data, **options, **uncertainty)


def evaluate(
    data: xr.Dataset | Paths,
    models: Model | str | Path | Sequence[Model | str | Path] = (),
    *,
    split: str = "test",
    steps: int | None = None,
    protocol: str = "honest",
    options: Options | None = None,
    reading: Reading | None = None,
) -> Document:
    """Score models, forecast files and baselines on the same windows, as `pdr evaluate` does.

    Args:
        data: the truth, an open dataset or files.
        models: models as for `load`, loaded ones, or forecast files; default: the default model.
        split: "test" (data that no model has seen), "val", "train" or "all".
        steps: lead times; default: the shortest horizon of the models.
        protocol: "honest", or "openstl" for the published windows and scaling.
        options: scores, baselines and analyses; default: those of the kind of data.
        reading: how models and data are read, including the device.

    Raises:
        PdrError: as `pdr evaluate`.
    """
    each = [models] if isinstance(models, (Model, str, Path)) else models
    forecasters = [m.loaded if isinstance(m, Model) else str(m) for m in each]
    truth = data if isinstance(data, xr.Dataset) else formats.find_inputs(_listed(data))
    chosen = sources.task_of(truth, forecasters, reading or Reading(), split=split, steps=steps, protocol=protocol)
    return evaluation.evaluate(chosen, options or Options()).document


def _listed(paths: Paths) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else paths


@contextlib.contextmanager
def _opened(intake: Intake, data: xr.Dataset | Paths, rename: Mapping[str, str] | None) -> Iterator[Series]:
    """The series of a dataset or of files; errors in the block tell files that are being written from damaged ones."""
    if isinstance(data, xr.Dataset):
        yield intake.from_dataset(data, rename)
        return
    paths = formats.find_inputs(_listed(data))
    with locks.inputs_in_use(paths):
        yield intakes.only_series(intake.open(paths, rename))
