"""Predictors by name, the user's own among them."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pdr_cli.choices import PREDICTORS
from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.registry import build
from pdr_cli.trust import USER
from tests.models.builders import build_predictor, options, training_batch

FRAMES = Frames(3, 1, (8, 8))
OPTIONS: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}


@pytest.fixture
def my_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Identity):\n"
        "    def __init__(self, *faces, **options):\n"
        "        super().__init__()\n"
        "        self.options = options\n"
        "class OnGrid(nn.Identity):\n"
        "    def __init__(self, size, **options):\n"
        "        super().__init__()\n"
        "        self.size = size\n"
        "class Narrow(nn.Module):\n"
        "    def __init__(self, channels): super().__init__()\n"
        "def not_a_net(**options): return 3\n"
        "from pdr_cli.models.interfaces import Adapter, Fusion, Predictor\n"
        "class Teaches(Predictor):\n"
        "    def __init__(self, **options): super().__init__()\n"
        "    def forward(self, x, steps=None, anchor=None, covariates=None, seeds=None):\n"
        "        return x[:, -1:].expand(-1, steps, -1, -1, -1)\n"
        "    def training_forward(self, batch, anchor=None): return batch.target, {'prior': 3}\n"
        "class Former(nn.Identity):\n"
        "    any_horizon = True\n"
        "    def __init__(self, **options): super().__init__()\n"
        "class Motion(Adapter):\n"
        "    def __init__(self, frames, options): super().__init__()\n"
        "    def forward(self, coarse, observed, covariates=None, seeds=None):\n"
        "        return (observed[:, -1:] - observed[:, :1]).expand_as(coarse)\n"
        "    def training_forward(self, coarse, batch): return self(coarse, batch.observed), {'sparse': 2}\n"
        "class Mean(Fusion):\n"
        "    def forward(self, coarse, layer): return (coarse + layer) / 2\n"
        "class Plain(nn.Identity):\n"
        "    def __init__(self, channels): super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_nets", None)


def test_tau_is_listed_and_builds() -> None:
    assert "tau" in PREDICTORS.names()
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
        ("my_nets:not_a_net", "is a int; expected a torch.nn.Module"),
        ("my_nets:", "module:Name"),
    ],
)
def test_what_cannot_be_built_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_predictor(name, 3, 1, **OPTIONS)


@pytest.mark.usefixtures("my_nets")
def test_entry_point_is_listed_and_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    announced = EntryPoints([EntryPoint("mine", "my_nets:Mine", "pdr.predictors")])
    monkeypatch.setattr(importlib.metadata, "entry_points", announced.select)
    assert PREDICTORS.names() == [*PREDICTORS.own, "mine"]
    assert isinstance(build_predictor("mine", 3, 1, **OPTIONS), nn.Identity)


@pytest.mark.usefixtures("my_nets")
def test_a_predictor_of_ones_own_may_train_in_its_own_way() -> None:
    model = build(options(backbone="my_nets:Teaches", fusion="none"), FRAMES, USER)
    x, y = torch.zeros(1, 3, 1, 8, 8), torch.ones(1, 5, 1, 8, 8)
    assert not model(Batch(x, 5)).fused.any()
    forecast = model(training_batch(x, y), "train")
    assert torch.equal(forecast.fused, y)
    assert forecast.terms == {"prior": 3}


@pytest.mark.usefixtures("my_nets")
def test_the_attributes_of_former_times_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"any_horizon.*define training_forward"):
        build_predictor("my_nets:Former", 3, 1, **OPTIONS)


@pytest.mark.usefixtures("my_nets")
def test_an_adapter_and_a_fusion_of_ones_own_are_built() -> None:
    model = build(options(adapter="my_nets:Motion", fusion="my_nets:Mean", **OPTIONS), FRAMES, USER)
    x, y = torch.rand(1, 3, 1, 8, 8), torch.rand(1, 4, 1, 8, 8)
    forecast = model.eval()(training_batch(x, y), "train")
    assert torch.allclose(forecast.layer, (x[:, -1:] - x[:, :1]).expand_as(y)), "it sees the whole window"
    assert torch.allclose(forecast.fused, (forecast.coarse + forecast.layer) / 2)
    assert forecast.terms == {"sparse": 2}
    assert model(Batch(x, 4)).terms == {}


@pytest.mark.usefixtures("my_nets")
@pytest.mark.parametrize("choice", [{"adapter": "my_nets:Mine"}, {"fusion": "my_nets:Plain"}])
def test_objects_of_another_kind_are_refused(choice: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"expected a pdr_cli\.models\.interfaces\.(Adapter|Fusion)"):
        build(options(**OPTIONS | choice), FRAMES, USER)
