"""Run folders: the files of one, and the model that `-m` or its absence names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pdr_cli.errors import InputNotFoundError, did_you_mean

RUNS = Path("runs")
DEMO = "demo:"  # before the name of a model that comes with pdr
DEMOS = Path(__file__).parents[1] / "demo"
TRAIN_HINT = "train one first: pdr train --preset weather-small --data FILE.nc"


@dataclass(frozen=True)
class RunFolder:
    """The files of one training run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved preset."""
        return self.path / "config.toml"

    @property
    def model(self) -> Path:
        """The best model on validation, self-contained."""
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        """The state from which training continues, of the last saved step."""
        return self.path / "state" / "last.safetensors"

    @property
    def start(self) -> Path:
        """The origin of the weights, if they are not new."""
        return self.state.with_name("start.json")

    @property
    def previous_state(self) -> Path:
        """The state before the last one."""
        return self.state.with_name("last-1.safetensors")

    @property
    def previous_model(self) -> Path:
        """The model before the last one."""
        return self.state.with_name("model-1.safetensors")

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def card(self) -> Path:
        """What the model is, for people and model hubs."""
        return self.path / "README.md"

    @property
    def curves(self) -> Path:
        """A plot of the losses against steps."""
        return self.path / "curves.png"

    def finished(self) -> bool:
        """True if training reached its end, or if the folder has a model and no log."""
        if not self.model.is_file():
            return False
        if not self.metrics.is_file():
            return True
        lines = self.metrics.read_text(encoding="utf-8").strip().splitlines()
        try:
            return bool(lines) and json.loads(lines[-1]).get("event") == "finished"
        except json.JSONDecodeError:
            return False


def find_model(argument: str | None) -> Path:
    """The model file of a run folder, a file or a run name; by default that of $PDR_MODEL, or else of the newest run.

    Raises:
        InputNotFoundError: no such model, or no finished run.
    """
    argument = argument or os.environ.get("PDR_MODEL")
    if not argument:
        return _newest()
    if argument.startswith(DEMO):
        return _demo(argument)
    for candidate in (Path(argument), RUNS / argument):
        if candidate.is_file():
            return candidate
        if candidate.is_dir():
            return _model_of(candidate)
    near = did_you_mean(argument, [p.name for p in RUNS.iterdir()] if RUNS.is_dir() else [])
    found = f"no model {argument}"
    raise InputNotFoundError(f"{found}.{near}" if near else found, way_out="" if near else TRAIN_HINT)


def trained() -> list[Path]:
    """The folders under ./runs that have a model."""
    return _with_model(RUNS)


def demos() -> list[Path]:
    """The folders of the models that come with pdr."""
    return _with_model(DEMOS)


def _with_model(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/model.safetensors"))


def is_of_a_run(model: Path) -> bool:
    """True for a model file that is called by its folder."""
    return model == RunFolder(model.parent).model


def label_of(model: Path) -> str:
    """What a model file is called: demo:NAME, its run folder, or the file."""
    if model.parent.parent == DEMOS:
        return DEMO + model.parent.name
    return str(model.parent if is_of_a_run(model) else model)


def is_demo(model: Path) -> bool:
    """True for a model that comes with pdr, which stays as it is."""
    return label_of(model).startswith(DEMO)


def _demo(argument: str) -> Path:
    names = [DEMO + folder.name for folder in demos()]
    if argument not in names:
        found = f"no model {argument}.{did_you_mean(argument, names)}"
        raise InputNotFoundError(found, f"one of {', '.join(names)}", "pdr models lists them")
    return RunFolder(DEMOS / argument.removeprefix(DEMO)).model


def _model_of(run: Path) -> Path:
    model = RunFolder(run).model
    if not model.is_file():
        way_out = f"continue it with: pdr train --resume -o {run}"
        raise InputNotFoundError(f"run {run} has no model yet", way_out=way_out)
    return model


def _newest() -> Path:
    folders = [RunFolder(p) for p in RUNS.iterdir() if p.is_dir()] if RUNS.is_dir() else []
    done = [f.model for f in folders if f.finished()]
    if not done:
        raise InputNotFoundError(f"no finished run under ./{RUNS}", way_out=f"name a model with -m, or {TRAIN_HINT}")
    return max(done, key=lambda m: m.stat().st_mtime)
