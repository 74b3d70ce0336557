"""Which model an argument names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdr_cli.errors import InputNotFoundError
from pdr_cli.runs.folder import RunFolder, find_model


def finished(name: str, seconds: int = 0) -> Path:
    """A finished run under runs/, last changed at this second."""
    run = RunFolder(Path("runs", name))
    run.path.mkdir(parents=True)
    run.model.touch()
    os.utime(run.model, (seconds, seconds))
    return run.model


def test_a_folder_a_file_and_a_name_are_one_model() -> None:
    model = finished("bikes")
    assert find_model("runs/bikes") == find_model("bikes") == find_model(str(model)) == model


def test_without_an_argument_it_is_the_newest_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    finished("new", seconds=2)
    old = finished("old", seconds=1)
    unfinished = RunFolder(finished("unfinished", seconds=3).parent)
    unfinished.metrics.write_text('{"event": "step"}\n')
    assert find_model(None) == Path("runs/new/model.safetensors")
    monkeypatch.setenv("PDR_MODEL", "old")
    assert find_model(None) == old


def test_what_is_missing_is_named_with_a_way_out() -> None:
    with pytest.raises(InputNotFoundError, match="pdr train --preset"):
        find_model(None)
    finished("bikes")
    with pytest.raises(InputNotFoundError, match="Did you mean 'bikes'"):
        find_model("bike")
    Path("runs/empty").mkdir()
    with pytest.raises(InputNotFoundError, match="has no model yet; continue it with: pdr train --resume"):
        find_model("empty")
