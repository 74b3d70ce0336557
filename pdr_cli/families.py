"""Families of objects that are chosen by name: ours, those of installed packages, and `module:Name`.

A family of choices lists ours by name, each with the place of its object, which is imported when it is first needed, and
a phrase that help texts, tables of the docs and error messages are made from. Packages announce theirs as entry points
of the group `pdr.<family>`; docs/extending.md shows one. A `module:Name` is imported only where it may run (see `trust`).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from pdr_cli.errors import ConfigError, PdrError, UntrustedCodeError, did_you_mean
from pdr_cli.trust import ENVIRONMENT, OPTION, Trust, culprit, module_of, source

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Choice:
    """One of ours: where its object is, as `module:Name`, and what it is, in a phrase."""

    place: str
    about: str


@dataclass(frozen=True)
class Family:
    """Objects of one kind by name.

    Args:
        name: plural, as in the entry-point group `pdr.<name>`.
        noun: singular, for messages.
        option: what chooses one, such as "--backbone"; "" where a key of the preset does.
        own: ours, in the order in which help texts list them.
        error: raised for an unknown name.
        open: whether entry points and `module:Name` are choices too.
    """

    name: str
    noun: str
    option: str
    own: Mapping[str, Choice]
    error: type[PdrError] = field(default=ConfigError)
    open: bool = True

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"pdr.{self.name}"

    def names(self) -> list[str]:
        """Every name: ours, then those that installed packages announce."""
        return [*self.own, *(n for n in sorted(self.announced()) if n not in self.own)]

    def announced(self) -> dict[str, EntryPoint]:
        """Entry points by name; none of a family that is not open."""
        from importlib.metadata import entry_points  # slow to import, and help texts do without

        points = entry_points(group=self.group) if self.open else ()
        return {point.name: point for point in points if _is_installed(point)}

    def help(self) -> str:
        """Our names for an option's help text: "a, b or c"; of an open family "a, b, c or module:Name"."""
        *most, last = [*self.own, *(["module:Name"] if self.open else [])]
        return f"{', '.join(most)} or {last}" if most else last

    def check(self, name: str) -> None:
        """Refuse a name that nothing has.

        Raises:
            PdrError: of the family's type; lists the names and suggests the nearest.
        """
        if name not in self.own and name not in self.announced() and not (self.open and all(name.partition(":"))):
            raise self.unknown(name)

    def find(self, name: str, trust: Trust | None = None) -> Any:
        """The object of a name: ours, an entry point's, or that of `module:Name`.

        Args:
            name: of the choice.
            trust: the code of others that may run; default: what $PDR_TRUST_CODE names.

        Raises:
            PdrError: of the family's type: unknown name, or an object that cannot be imported.
            UntrustedCodeError: a `module:Name` whose code may not run.
        """
        self.check(name)
        if name in self.own:
            return imported(self.own[name].place)
        announced = {n: point.value for n, point in self.announced().items()}
        if name not in announced and name not in announced.values() and not (trust or Trust()).allows(name):
            raise self.untrusted(name)
        return self._imported(name, announced.get(name, name))

    def place(self, name: str) -> str | None:
        """The `module:Name` of a name that is not ours; None of ours.

        Raises:
            PdrError: as `check`.
        """
        self.check(name)
        if name in self.own:
            return None
        point = self.announced().get(name)
        return name if point is None else point.value

    def untrusted(self, name: str) -> UntrustedCodeError:
        """The error for a `module:Name` whose code may not run."""
        module = module_of(name)
        return UntrustedCodeError(
            f"{self._chosen(name)} is code of the module {module} ({source(module) or 'not found'}), which a file names "
            "and no installed package announces; it was not run",
            way_out=f"if you trust this code, add {OPTION}, or set {ENVIRONMENT}={module}",
        )

    def _imported(self, name: str, place: str) -> Any:
        """The object of another package at a place."""
        if module_of(place) not in FOREIGN:
            FOREIGN.add(module_of(place))
            log.info("code    %s runs %s", self._chosen(name), source(module_of(place)) or place)
        try:
            return imported(place)
        except (ImportError, AttributeError) as error:
            near = did_you_mean(error.name or "", dir(error.obj)) if isinstance(error, AttributeError) else ""
            found = f"{self._chosen(name)} cannot be imported: {error}.{near}"
            raise self.error(found, way_out="the folder of its module must be on PYTHONPATH") from error
        except (Exception, SystemExit) as error:
            where = culprit(error.__traceback__, FOREIGN) or place
            found = f"{self._chosen(name)} cannot be imported: {type(error).__name__}: {error}"
            raise self.error(found, way_out=f"mend {where}") from error

    def unknown(self, name: str) -> PdrError:
        """The error for a name that nothing has."""
        yours = "; yours is named as module:Name" if self.open else ""
        found = f"{self._chosen(name)} is not known.{did_you_mean(name, self.names())}"
        return self.error(found, f"one of {', '.join(self.names())}{yours}")

    def _chosen(self, name: str) -> str:
        return f"{self.option} {name}" if self.option else f"{self.noun} {name!r}"


log = logging.getLogger("pdr")
FOREIGN: set[str] = set()  # modules of others that were imported; they stay imported for the whole process


def _is_installed(point: EntryPoint) -> bool:
    """False for a package that lies unpacked in the current folder, as beside a model that was downloaded."""
    folder = "" if point.dist is None else str(point.dist.locate_file(""))
    if point.dist is None or not os.path.isdir(folder) or not os.path.samefile(folder, os.curdir):
        return True
    _warn_of_unpacked(point.dist.name, folder)
    return False


@cache
def _warn_of_unpacked(name: str, folder: str) -> None:
    log.warning(
        "package %s lies in the current folder %s, which does not make it installed; it is left out", name, folder
    )


@cache
def imported(place: str) -> Any:
    """The object at `module:Name`."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
