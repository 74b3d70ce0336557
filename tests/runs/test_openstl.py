"""Files of OpenSTL: tensors only, and the reason where a file is refused."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.runs import container
from pdr_cli.runs.openstl import load_openstl
from tests.models.builders import build_predictor


def tau() -> dict[str, Tensor]:
    return build_predictor("tau", 4, 2, hid_s=4, hid_t=8, n_s=2, n_t=2).state_dict()


def test_file_of_weights_is_read(tmp_path: Path) -> None:
    state = tau()
    torch.save({"epoch": 1, "state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "best.ckpt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_openstl(tmp_path / "best.ckpt").items())


class Settings(dict[str, int]):
    """As Lightning's AttributeDict."""


class Slotted:
    __slots__ = ("lr",)

    def __init__(self) -> None:
        self.lr = 1


class Ran:
    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


SETTINGS = (
    argparse.Namespace(lr=1),
    Settings(lr=1),
    Slotted(),
    Path("a"),
    defaultdict(list, a=1),
    Settings,
    np.float64(1),
)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: type(s).__name__)
def test_settings_beside_the_weights_are_passed_over(tmp_path: Path, settings: object) -> None:
    state = tau()
    torch.save({"hyper_parameters": settings, "state_dict": state}, tmp_path / "a.ckpt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_openstl(tmp_path / "a.ckpt").items())


@pytest.mark.parametrize("call", [(exec, "open('ran', 'w')"), (os.system, "touch ran"), (open, "ran", "w")], ids=str)
def test_code_in_a_file_does_not_run(tmp_path: Path, call: tuple[Callable[..., Any], str]) -> None:
    torch.save({"hyper_parameters": Ran(*call), "state_dict": tau()}, tmp_path / "a.ckpt")
    with contextlib.suppress(CheckpointError):
        load_openstl(tmp_path / "a.ckpt")
    torch.save({"state_dict": {"a": Ran(*call)}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError):
        load_openstl(tmp_path / "a.ckpt")
    assert not Path("ran").exists()


@pytest.mark.parametrize("holder", ["state_dict", "model_state_dict", "model", "module", "net", ""])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod.", "model._orig_mod.", "net."])
def test_checkpoints_of_the_frameworks_hold_the_same_weights(tmp_path: Path, holder: str, prefix: str) -> None:
    state = tau()
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({holder: named, "epoch": 3, "optimizer": {"lr": 0.1}} if holder else named, tmp_path / "a.pt")
    found = load_openstl(tmp_path / "a.pt")
    assert found.keys() == state.keys()


def test_safetensors_of_another_program_are_weights_to_start_from(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {f"model.{name}": tensor.clone() for name, tensor in tau().items()}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    assert container.is_foreign(tmp_path / "model.safetensors")
    assert load_openstl(tmp_path / "model.safetensors").keys() == tau().keys()


@pytest.mark.parametrize("content", [b"", b"no weights here", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a.pth is not a PyTorch file, or is damaged"):
        load_openstl(tmp_path / "a.pth")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor; expected a state dict"):
        load_openstl(tmp_path / "a.pth")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputNotFoundError, match=r"nowhere\.pth"):
        load_openstl("nowhere.pth")
