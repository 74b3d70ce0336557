"""What a shell offers after an option: names of presets, of runs and of everything that is chosen by name.

A name that begins with what is typed; where there is none, the shell offers files.
"""

from __future__ import annotations

from collections.abc import Callable

from pdr_cli.families import Family

Completion = list[tuple[str, str]]  # names and what each is


def presets(incomplete: str) -> list[str]:
    """Presets that are shipped."""
    from pdr_cli.config import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Runs under ./runs that have a model, and the models that come with pdr."""
    from pdr_cli.runs.folder import DEMO, demos, trained

    names = [folder.name for folder in trained()] + [DEMO + folder.name for folder in demos()]
    return sorted(name for name in names if name.startswith(incomplete))


def names_of(family: Family) -> Callable[[str], Completion]:
    """A function that offers our names of a family."""

    def offer(incomplete: str) -> Completion:
        return [(name, choice.about) for name, choice in family.own.items() if name.startswith(incomplete)]

    return offer
