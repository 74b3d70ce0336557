"""The page that scripts rely on names every error there is, with its exit code."""

import importlib
import pkgutil
import re
from pathlib import Path

import pdr_cli
from pdr_cli.errors import PdrError

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def classes(base: type[PdrError]) -> set[type[PdrError]]:
    return {base, *(found for child in base.__subclasses__() for found in classes(child))}


def of_the_code() -> set[tuple[str, str]]:
    for module in pkgutil.walk_packages(pdr_cli.__path__, "pdr_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known = {(c.name, str(c.code)) for c in classes(PdrError) if c.__module__.startswith("pdr_cli") and c.name}
    # An interruption has the code of its signal.
    interrupted = {("E_INTERRUPTED", "130, 138, 143")}
    return {(n, c) for n, c in known if n != "E_INTERRUPTED"} | interrupted


def of_the_page() -> set[tuple[str, str]]:
    return set(re.findall(r"^\| `(E_\w+)` \| ([\d, ]+) \| [^|]+ \| [^|]+ \|$", PAGE.read_text(), flags=re.MULTILINE))


def test_the_page_and_the_code_name_the_same_errors() -> None:
    assert of_the_page() == of_the_code()


def test_every_code_of_an_error_says_what_a_caller_should_do() -> None:
    explained = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| [^|]+ \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert {codes for _, codes in of_the_code()} <= set(explained)
