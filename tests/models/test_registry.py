"""Predictors by name, the user's own among them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pdr_cli.errors import ConfigError
from pdr_cli.models import registry
from pdr_cli.models.registry import build_predictor, predictors

OPTIONS: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}


@pytest.fixture
def my_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Identity):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__()\n"
        "        self.options = options\n"
        "class OnGrid(nn.Identity):\n"
        "    def __init__(self, size, **options):\n"
        "        super().__init__()\n"
        "        self.size = size\n"
        "class Narrow(nn.Module):\n"
        "    def __init__(self, channels): super().__init__()\n"
        "def not_a_net(**options): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_nets", None)


def test_tau_is_listed_and_builds() -> None:
    assert "tau" in predictors()
    assert build_predictor("tau", 3, 1, **OPTIONS)(torch.rand(1, 3, 1, 8, 8)).shape == (1, 3, 1, 8, 8)


def test_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tau'"):
        build_predictor("tauu", 3, 1, **OPTIONS)


@pytest.mark.usefixtures("my_nets")
def test_class_of_ones_own_gets_the_same_keywords() -> None:
    model = build_predictor("my_nets:Mine", 3, 1, **OPTIONS)
    assert model.options == {"in_steps": 3, "channels": 1, **OPTIONS}


@pytest.mark.usefixtures("my_nets")
def test_class_of_ones_own_is_told_the_grid_where_it_asks() -> None:
    assert build_predictor("my_nets:OnGrid", 3, 1, **OPTIONS, size=(8, 12)).size == (8, 12)


@pytest.mark.usefixtures("my_nets")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_nets:Mime", "Did you mean 'Mine'"),
        ("no_such_module:Net", "PYTHONPATH"),
        ("my_nets:Narrow", "was called with in_steps, channels"),
        ("my_nets:not_a_net", "built a int"),
        ("my_nets:", "module:Class"),
    ],
)
def test_what_cannot_be_built_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_predictor(name, 3, 1, **OPTIONS)


@pytest.mark.usefixtures("my_nets")
def test_entry_point_is_listed_and_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    announced = EntryPoints([EntryPoint("mine", "my_nets:Mine", registry.ENTRY_POINTS)])
    monkeypatch.setattr(registry, "entry_points", announced.select)
    assert predictors() == sorted([*registry.TRANSLATORS, *registry.NETWORKS, "mine"])
    assert isinstance(build_predictor("mine", 3, 1, **OPTIONS), nn.Identity)
