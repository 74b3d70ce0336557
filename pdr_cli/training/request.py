"""The configuration of a run, from a preset and settings, and its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdr_cli import config
from pdr_cli.errors import InputNotFoundError, OutputError, UsageError
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.settings import NONE
from pdr_cli.system import urls
from pdr_cli.trust import Trust

FINE = 0.25  # of the learning rate of a model, at which --fine-tune continues
# The keys of [train] that limit the length of a run, with values that do not.
UNLIMITED = {"epochs": 1000000, "steps": 0, "budget": "", "cpu_budget": ""}


@dataclass(frozen=True)
class Experiment:
    """A preset and the changes to it.

    Args:
        preset: name or TOML file; None to resume with the configuration that the run was started with.
        data: files, folders or globs; empty: those of the preset, under $PDR_DATA.
        variables: channels; empty: those of the preset.
        options: {"table.key": value}; None stands for the preset's value. The length of the training that they name
            replaces all limits of the preset: epochs, steps, budget and cpu_budget.
        settings: "table.key=value", applied last.
        fine_tune: model file whose settings and weights are continued from, in the place of a preset.
    """

    preset: str | None
    data: Sequence[str | Path] = ()
    variables: Sequence[str] = ()
    options: Mapping[str, Any] | None = None
    settings: Sequence[str] = ()
    fine_tune: Path | None = None

    def resolve(self, out: Path | None = None, resume: bool = False) -> Config:
        """The configuration.

        Args:
            out: folder of the run.
            resume: True if the run continues.

        Raises:
            UsageError, InputNotFoundError: no preset, or nothing to resume.
            ConfigError: an unknown preset, key or value.
        """
        overrides = [*self._overrides(), *self.settings]
        if self.fine_tune is not None:
            return _with_saved_paths(self._of_model(self.fine_tune, overrides))
        return _with_saved_paths(config.load(_source(self.preset, out, resume), overrides))

    def _of_model(self, model: Path, overrides: list[str]) -> Config:
        """The configuration of a model for other data: its network, its part of the learning rate, no dates of its own."""
        base, label = modelfile.read_header(model).card.config, runs.label_of(model)
        if self.preset is not None:
            raise UsageError(
                "--fine-tune takes the settings of its model", way_out="leave out --preset; --set changes keys"
            )
        if base.model.backbone == NONE:
            raise UsageError(
                f"--fine-tune {label}: it has no network, its forecast is that of its anchor, which is fitted anew to any data",
                way_out=f"train with --preset {base.preset}",
            )
        own = [f"train.lr={FINE * base.train.lr!r}", *(f"data.{part}_period=" for part in ("train", "val", "test"))]
        return config.changed(base, own + overrides, label)

    def trust(self, everything: bool = False) -> Trust:
        """The code that may run: what options and settings name, which the user wrote; with `everything`, all."""
        values = [*(setting.partition("=")[2] for setting in self.settings), *(self.options or {}).values()]
        return Trust(everything).also([name.strip() for value in values for name in str(value).split(",")])

    def _overrides(self) -> list[str]:
        options = {key: value for key, value in (self.options or {}).items() if value is not None}
        overrides = [f"{key}={_with_paths(key, value)}" for key, value in options.items()]
        if self.data:
            overrides.append(f"data.paths={json.dumps([_saved(d) for d in self.data], ensure_ascii=False)}")
        if self.variables:
            overrides.append(f"data.variables={','.join(self.variables)}")
        return overrides + _limits(options)


def _with_paths(key: str, value: Any) -> Any:
    """The value of an option, with the paths in it as the configuration saves them."""
    if key == "data.holidays":
        return _saved(value)
    if key != "data.static":
        return value
    entries = (entry.rpartition(":") for entry in str(value).split(","))
    return ",".join(f"{_saved(file)}:{name}" if file else name for file, _, name in entries)


def _with_saved_paths(found: Config) -> Config:
    """A configuration whose files of weights are found again from any folder."""
    for name, key in (("train", "lpips_weights"), ("scene", "lpips")):
        table = getattr(found, name)
        if table is not None and (path := getattr(table, key)):
            found = found.model_copy(update={name: table.model_copy(update={key: _saved(path)})})
    return found


def _saved(path: str | Path) -> str:
    """A path as the configuration saves it: absolute, so that it is found again from any folder; a URL as it is.

    Raises:
        UsageError: a URL with credentials, which a run would keep and models would spread.
    """
    url = urls.remote(str(path))
    if url is None:
        return os.path.abspath(path)
    if urls.has_credentials(url.url):
        way_out = (
            "set credentials in the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS), or download it"
        )
        raise UsageError(f"{url} has a password or a query, which the run would save", way_out=way_out)
    return url.url


def _limits(options: Mapping[str, Any]) -> list[str]:
    """Lift the preset's limits on the length of a run that `options` do not name; of passes only if they name steps."""
    named = {key for key in UNLIMITED if options.get(f"train.{key}")}
    if not named:
        return []
    lifted = UNLIMITED.keys() - named - (set() if "steps" in named else {"epochs"})
    return [f"train.{key}={value}" for key, value in UNLIMITED.items() if key in lifted]


def _source(preset: str | None, out: Path | None, resume: bool) -> str:
    """The preset, or the saved configuration of the run to be resumed."""
    if resume and out is None:
        raise UsageError("--resume continues one run, and -o names none", way_out="name its folder with -o")
    if preset is not None:
        return preset
    if not resume or out is None:
        raise UsageError("no preset", way_out="name one with --preset; `pdr presets` lists them")
    saved = RunFolder(out).config
    if not saved.is_file():
        raise _nothing_to_resume(out)
    return str(saved)


def run_folder(path: Path | None, config: Config, resume: bool) -> RunFolder:
    """The folder of a run, checked and not created; by default a new one under runs/, named by preset and time.

    Raises:
        InputNotFoundError: nothing to resume in it.
        OutputError: it holds something else, or cannot be created.
    """
    if path is not None:
        urls.refuse_output(path)
    folder = RunFolder(path or runs.RUNS / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.path.exists() and not folder.path.is_dir():
        raise OutputError(f"run folder {folder.path} is a file", way_out="name another with -o")
    if resume and not folder.state.is_file():
        raise _nothing_to_resume(folder.path)
    if not resume and folder.path.is_dir() and any(folder.path.iterdir()):
        way_out = "continue it with --resume, or name another with -o"
        raise OutputError(f"run folder {folder.path} is not empty", way_out=way_out)
    _check_writable(folder.path)
    return folder


def _check_writable(path: Path) -> None:
    above = path if path.exists() else next(p for p in path.absolute().parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        way_out = "name another folder with -o"
        raise OutputError(f"cannot create run folder {path}: no permission to write in {above}", way_out=way_out)


def _nothing_to_resume(path: Path) -> InputNotFoundError:
    return InputNotFoundError(f"nothing to resume in {path}", way_out="start the run without --resume")
