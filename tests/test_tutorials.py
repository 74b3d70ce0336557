"""The tutorials do what they say: their commands run, in their order, and print the lines that are shown, but for the numbers.

Trainings are cut to a few steps, so the numbers of the text are those of the run that it names.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from pdr_cli.app import app
from tests.cli import pdr

TUTORIALS = Path(__file__).parents[1] / "docs/tutorials"
FENCE = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Options of a training that cut it: few steps, few months of data, an anchor that is fitted at once, no scores on its card.
SHORTER = {
    "weather": "--steps 3 --set data.train_period=2013-05/2013-07 --set data.val_period=2013-11-01/2013-11-10 "
    "--set data.test_period=2013-12-16/2013-12-31",
    "traffic": "--anchor anomaly --set train.baselines=false",
    "video": "--steps 3",
}
UNSCORED = ["--set", "train.card_windows=0"]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and text of each block of code."""
    return ((language, text) for language, text in FENCE.findall(page))


def shapes(text: str) -> list[str]:
    """The lines of a text without numbers, widths of columns and marks of significance."""
    lines = re.sub(r"[-+]?\d[\d.,:-]*(e-?\d+)?", "#", text.replace("n.s.", "")).splitlines()
    return [re.sub(r"([━─])+|[ #]+", lambda found: found[1] or " ", line).strip() for line in lines if line.strip()]


def missing(shown: str, printed: str) -> list[str]:
    """Lines that are shown and were not printed in this order."""
    left = iter(shapes(printed))
    return [line for line in shapes(shown) if line not in left]


def run(language: str, text: str, more: list[str]) -> str:
    """Run a block; what it printed. `more` are arguments of every training."""
    if language == "python":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(text, {})
        return out.getvalue()
    printed = ""
    for line in text.splitlines():
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "pdr", line
        done = pdr(command, *arguments, *(more if command == "train" else []))
        assert done.code == 0, f"{line}: {done.err}"
        printed += done.out
    return printed


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_runs_and_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed, compared = "", 0
    for language, text in blocks(page.read_text(encoding="utf-8")):
        if language == "text":
            assert missing(text, printed) == []
            compared += 1
        else:
            printed = run(language, text, [*SHORTER[page.stem].split(), *UNSCORED])
    assert compared >= 3
    for picture in tmp_path.glob("*.png"):
        assert f"images/{picture.name}" in page.read_text(encoding="utf-8")


def test_the_commands_of_the_quick_start_are_accepted() -> None:
    known = typer.main.get_command(app).commands
    commands = [
        line for language, text in blocks((TUTORIALS.parent / "index.md").read_text()) for line in text.splitlines()
    ]
    assert len(commands) == 5
    for line in commands:
        _, name, *arguments = shlex.split(line, comments=True)
        known[name].make_context(name, arguments)  # raises an error for an option that is not known


def test_a_line_that_is_not_printed_is_found() -> None:
    printed = "rmse (K)\n│ 6 h │ 0.5 n.s. │\n├───┤\n│ all │ 1.5e-05 │\n"
    assert missing("│ 6 h  │   12.25 │\n│ all  │ 3 │\n", printed) == []
    assert missing("│ all │ 3 │\n│ 6 h │ 12 │\n", printed) == ["│ h │ │"]  # in another order
    assert missing("rmse (m)\n", printed) == ["rmse (m)"]
