"""The calibration of a model on data that its training has not seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.errors import UsageError
from pdr_cli.runs import calibration, modelfile
from pdr_cli.runs.calibration import Calibration
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic, locks
from pdr_cli.system.logs import Progress
from pdr_cli.verification import forecasters
from pdr_cli.verification.task import Task


def calibrate(task: Task, bar: Progress) -> Calibration:
    """The quantiles of the errors of a task's only model on its windows.

    Raises:
        UsageError: fewer windows than any interval needs, or lead times than the model was trained for.
    """
    task = _checked(task)
    model, series = next(iter(task.models.values())), task.series
    forecaster, turn = forecasters.of_model(model, series), forecasters.orientation(model, series[0])
    count = len(task.windows)
    errors = np.empty((count, task.windows.out_steps, len(model.card.variables), *model.card.size), np.float32)
    for start in range(0, count, calibration.AT_ONCE):
        which = np.arange(start, min(start + calibration.AT_ONCE, count))
        request, truth = task.batch(which)
        known = np.where(np.isfinite(truth), truth, np.float32(np.nan))
        errors[which] = turn.apply(known - forecaster.forecast(request))
        bar.update(which[-1] / count)
    return Calibration.of_errors(errors, about(task))


def _checked(task: Task) -> Task:
    """The task with no more windows than memory holds."""
    model, windows = next(iter(task.models.values())), task.windows
    model.needs_network("pdr calibrate")
    values = windows.out_steps * int(np.prod(task.truth.shape[1:]))
    windows = windows.spread(calibration.most_windows(values))
    if len(windows) < calibration.LEAST:
        raise UsageError(
            f"{task.truth.attrs['files'][0]} has {len(windows)} windows that are {task.split} data for {model.label}",
            f"at least {calibration.LEAST}, for an interval of 80 %",
            "give more data, or --split val for the windows that chose the model",
        )
    if windows.out_steps < model.card.config.data.out_steps:
        raise UsageError(
            f"--steps {windows.out_steps}: {model.label} forecasts {model.card.config.data.out_steps}",
            way_out="calibrate as many lead times or more",
        )
    return dataclasses.replace(task, windows=windows)


def about(task: Task) -> dict[str, Any]:
    """The origin of a calibration."""
    files = dict.fromkeys(Path(str(file)).name for one in task.series for file in one.attrs["files"])
    return {"split": task.split, "data": list(files), "period": task.windows.period}


def save(path: Path, found: Calibration) -> None:
    """Write a calibration into a model file; a run keeps the file before it as its previous model.

    Raises:
        LockedError: a training writes to the run.
    """
    folder = RunFolder(path.parent)
    of_a_run = path.name == folder.model.name and folder.config.is_file()
    with locks.locked(folder.path if of_a_run else path):
        if of_a_run:
            folder.state.parent.mkdir(exist_ok=True)
            atomic.keep_previous(path, folder.previous_model)
        modelfile.recalibrate(path, found)
