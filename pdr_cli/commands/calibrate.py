"""`pdr calibrate`: renew the errors that a model's intervals are made of; prints one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdr_cli.data import formats
from pdr_cli.drawing import runcard
from pdr_cli.errors import UsageError
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system.logs import progress
from pdr_cli.verification import calibrating, sources
from pdr_cli.verification.sources import Reading

SPLITS = ("test", "val", "all")


@dataclass(frozen=True)
class Choice:
    """The windows to calibrate on.

    Args:
        split: "test" (what training has not seen), "val" or "all".
        steps: lead times; None: those of the training.
    """

    split: str = "test"
    steps: int | None = None


def run(model: str, arguments: Sequence[str], choice: Choice, reading: Mapping[str, Any]) -> None:
    """Calibrate; see `pdr calibrate --help` for the options. `reading`: see `Reading`."""
    if choice.split not in SPLITS:
        raise UsageError(f"--split {choice.split} is not known", f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    path, inputs = runs.find_model(model), formats.find_inputs(arguments)
    if runs.is_demo(path):
        raise UsageError(f"{model} stays as it comes", way_out="calibrate a run of your own: pdr train --fine-tune")
    task = sources.task_of(inputs, [str(path)], Reading(**reading), split=choice.split, steps=choice.steps)
    with progress("calibrating") as bar:
        found = calibrating.calibrate(task, bar)
    calibrating.save(path, found)
    (before,) = (loaded.sha256 for loaded in task.models.values())
    runcard.renew_hash(RunFolder(path.parent), before, modelfile.read_header(path).sha256)
    print(f"{path}  {found.words()}")
