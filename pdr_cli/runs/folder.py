"""Run folders: what is in one, and which model `-m` or its absence means."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pdr_cli.errors import InputNotFoundError, did_you_mean

RUNS = Path("runs")
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
        """Everything needed to go on from the last saved step."""
        return self.path / "state" / "last.safetensors"

    @property
    def start(self) -> Path:
        """The origin of the weights, if they are not new."""
        return self.state.with_name("start.json")

    @property
    def previous_state(self) -> Path:
        """What `state` was before it was last replaced."""
        return self.state.with_name("last-1.safetensors")

    @property
    def previous_model(self) -> Path:
        """What `model` was before it was last replaced."""
        return self.state.with_name("model-1.safetensors")

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """Losses against steps, drawn."""
        return self.path / "curves.png"

    def finished(self) -> bool:
        """True if training came to its end; a folder without a log is taken as finished."""
        if not self.model.is_file():
            return False
        if not self.metrics.is_file():
            return True
        lines = self.metrics.read_text().strip().splitlines()
        try:
            return bool(lines) and json.loads(lines[-1]).get("event") == "finished"
        except json.JSONDecodeError:
            return False


def find_model(argument: str | None) -> Path:
    """The model file that `-m` names: a run folder, a file, or a bare run name; without it $PDR_MODEL, else the newest run.

    Raises:
        InputNotFoundError: none there.
    """
    argument = argument or os.environ.get("PDR_MODEL")
    if not argument:
        return _newest()
    for candidate in (Path(argument), RUNS / argument):
        if candidate.is_file():
            return candidate
        if candidate.is_dir():
            model = RunFolder(candidate).model
            if not model.is_file():
                raise InputNotFoundError(
                    f"run {candidate} has no model yet; continue it with: pdr train --resume -o {candidate}"
                )
            return model
    known = [p.name for p in RUNS.iterdir()] if RUNS.is_dir() else []
    meant = did_you_mean(argument, known)
    raise InputNotFoundError(f"no model {argument}" + (f".{meant}" if meant else f"; {TRAIN_HINT}"))


def _newest() -> Path:
    folders = [RunFolder(p) for p in RUNS.iterdir() if p.is_dir()] if RUNS.is_dir() else []
    done = [f.model for f in folders if f.finished()]
    if not done:
        raise InputNotFoundError(f"no finished run under ./{RUNS}; name a model with -m, or {TRAIN_HINT}")
    return max(done, key=lambda m: m.stat().st_mtime)
