import os
import subprocess
import sys
from pathlib import Path

import pytest

import pdr_cli
from pdr_cli.errors import UsageError
from pdr_cli.process import spread
from tests.builders import video_file, weather_file
from tests.cli import pdr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train --data a b --preset p", "train --data a --data b --preset p"),
        ("train --data a --var u v -q", "train --data a --var u --var v -q"),
        ("bench-render --res 32 64 --backward", "bench-render --res 32 --res 64 --backward"),
        ("predict a b -o c", "predict a b -o c"),
        ("", ""),
    ],
)
def test_an_option_may_be_given_several_values_at_once(typed: str, meant: str) -> None:
    assert spread(typed.split()) == meant.split()


def test_files_that_a_shell_expands_are_all_read(tmp_path: Path) -> None:
    clips = [video_file(tmp_path / f"{i}.mp4", 30) for i in range(4)]
    result = pdr("train", "--preset", "demo", "--data", *clips, "--dry-run")
    assert (result.code, "3 more clips" in result.out) == (0, True), result.err
    one_by_one = [part for clip in clips for part in ("--data", clip)]
    again = pdr("train", "--preset", "demo", *one_by_one, "--dry-run").out
    assert without_memory(again) == without_memory(result.out)


def without_memory(text: str) -> list[str]:
    """Lines but that of the memory, which this process has more of each time."""
    return [line for line in text.splitlines() if not line.startswith("# memory")]


def test_nothing_but_a_path_is_needed_in_the_environment(tmp_path: Path) -> None:
    weather_file(tmp_path / "a.nc", 30)
    environment = {"PATH": os.environ["PATH"], "LANG": "C"}
    command = [sys.executable, "-m", "pdr_cli", "inspect", "a.nc"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 x 14" in done.stdout


def test_a_mistaken_option_is_a_usage_error() -> None:
    assert pdr("predict").code == 2
    assert pdr("predcit").code == 2
    assert pdr("train", "--preset", "demo", "--steps", "0").code == 2


def test_a_name_that_resembles_none_is_refused_in_one_sentence() -> None:
    assert str(UsageError("x is not known.", "a or b")) == "x is not known; expected a or b"
    assert str(UsageError("x is not known. Did you mean 'a'?", "a or b")).endswith("'a'? Expected a or b")
    assert str(UsageError("it goes on...", "a")) == "it goes on...; expected a"


def test_what_is_run_from_its_own_folder_starts_processes_of_itself(tmp_path: Path) -> None:
    folder = Path(pdr_cli.__file__).parent
    Path(tmp_path, "pdr_cli").mkdir()
    for name in os.listdir(folder):  # another copy than the installed one
        if name != "process.py":
            os.symlink(folder / name, tmp_path / "pdr_cli" / name)
    started = (
        "import multiprocessing.spawn, sys\n"
        "def main(): print(multiprocessing.spawn.get_preparation_data('')['sys_path'][0])"
    )
    Path(tmp_path, "pdr_cli", "process.py").write_text(started)
    command = [sys.executable, "-m", "pdr_cli"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path), done.stderr
    elsewhere = Path(tmp_path, "elsewhere")
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path), done.stderr  # not the current folder
