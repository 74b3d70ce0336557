"""Code of others: whose may run, where its source is, and whether a failure is its own.

A name `module:Name` runs a module that pdr did not install. The user may write one on the command line; a file that names
one, such as a model, a preset or the configuration of a run, must not run it by itself (docs/extending.md).
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

ENVIRONMENT = "PDR_TRUST_CODE"
OPTION = "--trust-code"
ALL = "1"
HASHED = ".py", ".so", ".pyd"  # files of a package that can change what it computes
NOT_FOUND = "not found"


@dataclass(frozen=True)
class Trust:
    """The code of others that may run. $PDR_TRUST_CODE adds to it: 1, or names of modules, comma-separated.

    Args:
        everything: True if each `module:Name` may run, as with --trust-code.
        names: each `module:Name` that the user wrote on the command line, or passed to the Python API.
    """

    everything: bool = False
    names: frozenset[str] = frozenset()

    def allows(self, name: str) -> bool:
        """Whether the code of a `module:Name` may run."""
        return self.everything or name in self.names or bool({ALL, module_of(name)} & _of_environment())

    def also(self, names: Iterable[object]) -> Trust:
        """The same, and further names."""
        return replace(self, names=self.names | {str(name) for name in names})


USER = Trust(everything=True)  # for a name that can only come from the command line or the Python API


def _of_environment() -> set[str]:
    return {part.strip() for part in os.environ.get(ENVIRONMENT, "").split(",")} - {""}


def module_of(place: str) -> str:
    """The module of a `module:Name`."""
    return place.partition(":")[0]


def source(module: str) -> Path | None:
    """The file of a module, or the folder of a package, found without importing anything; None if there is none."""
    loaded = sys.modules.get(module)
    if getattr(loaded, "__file__", None):
        return _file_or_folder(Path(str(loaded.__file__)))  # type: ignore[union-attr]
    places: list[str] | None = None
    spec = None
    for count in range(1, module.count(".") + 2):
        spec = importlib.machinery.PathFinder.find_spec(".".join(module.split(".")[:count]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return _file_or_folder(Path(spec.origin)) if spec is not None and spec.has_location and spec.origin else None


def _file_or_folder(file: Path) -> Path:
    return file.parent if file.name == "__init__.py" else file


def source_sha256(module: str) -> str:
    """SHA-256 of the source of a module, or of all files of its package; `NOT_FOUND` if it is not on PYTHONPATH."""
    top, own = source(module.partition(".")[0]), source(module)
    import hashlib

    place = top if top is not None and top.is_dir() else own
    if place is None:
        return NOT_FOUND
    files = sorted(p for p in place.rglob("*") if p.suffix in HASHED) if place.is_dir() else [place]
    found = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.relative_to(place.parent)} {len(content)} ".encode(errors="surrogateescape"))
        found.update(content)
    return found.hexdigest()


def culprit(trace: TracebackType | None, modules: Iterable[str]) -> str | None:
    """File and line of the code of others that a failure comes from; None if it comes from pdr.

    Args:
        trace: of the failure.
        modules: of others, whose code was imported.
    """
    tops = {module.partition(".")[0] for module in modules}
    found = None
    while trace is not None:
        top = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if top in tops:
            found = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        elif top == "pdr_cli":
            found = None
        trace = trace.tb_next
    return found
