"""What the shell offers: the script of `pdr --show-completion`, run by bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pdr_cli import choices, config

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that bash sources, with the command on the path."""
    folder = tmp_path_factory.mktemp("shell")
    command = folder / "pdr"
    command.write_text(f"#!{sys.executable}\nfrom pdr_cli.process import main\n\nmain()\n")
    command.chmod(0o755)
    # What --show-completion prints after it has found out the shell, which it cannot in every test run.
    environment = os.environ | {"_PDR_COMPLETE": "source_bash"}
    made = subprocess.run([command], env=environment, capture_output=True, text=True, check=True)
    source = folder / "completion.sh"
    source.write_text(f"PATH={folder}:$PATH\n{made.stdout}")
    return source


def offered(script: Path, *words: str, folder: Path) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    call = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _pdr_completion pdr"
    ask = f"source {script}; {call}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", ask], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_commands_and_options(script: Path, tmp_path: Path) -> None:
    assert offered(script, "pdr", "pre", folder=tmp_path) == ["predict", "presets"]
    assert offered(script, "pdr", "predict", "air.nc", "--skip", folder=tmp_path) == ["--skip-existing"]


def test_names_of_presets_of_runs_and_of_what_is_chosen(script: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "night").mkdir(parents=True)
    (tmp_path / "runs" / "night" / "model.safetensors").touch()
    (tmp_path / "runs" / "noon").mkdir()  # not trained yet
    assert offered(script, "pdr", "predict", "air.nc", "-m", "n", folder=tmp_path) == ["night"]
    assert offered(script, "pdr", "train", "--preset", "weather", folder=tmp_path) == [
        name for name in config.preset_names() if name.startswith("weather")
    ]
    fusions = offered(script, "pdr", "train", "--fusion", "", folder=tmp_path)
    assert fusions == list(choices.FUSIONS.own)
