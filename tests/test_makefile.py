"""The Makefile. `make gpu-check` is seldom run; its commands at least exist, with their options."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from pdr_cli.app import app
from pdr_cli.process import spread

ROOT = Path(__file__).parents[1]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@needs_make
def test_what_is_compiled_stays() -> None:
    """Where it does not, each of the processes of the tests compiles torch again, which takes longer than most of them."""
    show = ["make", "-s", "--eval", 'show: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"', "show"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    assert subprocess.run(show, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout == "[]\n"


@needs_make
def test_the_commands_of_gpu_check_are_accepted():
    make = ["make", "-n", "gpu-check", "PYTHON=python"]
    lines = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", "")
    commands = [shlex.split(line)[3:] for line in lines.splitlines() if line.startswith("python -m pdr_cli ")]
    names = {"bench-render", "bench-train", "sample", "train", "predict", "evaluate"}
    assert {name for name, *_ in commands} == names
    known = typer.main.get_command(app).commands
    for name, *options in commands:
        known[name].make_context(
            name, spread([name, *options])[1:]
        )  # parses, and raises an error for an option that is not known
    outputs = [options[options.index("-o") + 1] for _, *options in commands if "-o" in options]
    assert len(outputs) == len(set(outputs)) == len(commands)
