"""Runs that several commands are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# On frames alone, so that tests can run the network on a window.
SMALL = ("conv_width=4", "conv_depth=1", "model.normalize=density", "model.anchor=persistence")


@pytest.fixture(scope="session")
def adapter_run(make_run: Callable[..., Path], weather: Path) -> Callable[[str], Path]:
    """The run of an adapter on `weather`, trained for 2 steps when first asked for."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            settings = [part for setting in SMALL for part in ("--set", setting)]
            made[name] = make_run(weather, "--adapter", name, "--steps", "2", *settings)
        return made[name]

    return run


@pytest.fixture(scope="module")
def plain_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run whose network reads frames alone."""
    return make_run(weather, "--set", "model.anchor=persistence")
