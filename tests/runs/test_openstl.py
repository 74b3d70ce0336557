"""Files of OpenSTL: tensors only, and the reason where a file is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pdr_cli.errors import CheckpointError, InputNotFoundError
from pdr_cli.runs.openstl import load_openstl
from tests.models.builders import build_predictor


def tau() -> dict[str, Tensor]:
    return build_predictor("tau", 4, 2, hid_s=4, hid_t=8, n_s=2, n_t=2).state_dict()


def test_file_of_weights_is_read(tmp_path: Path) -> None:
    state = tau()
    torch.save({"epoch": 1, "state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "best.ckpt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_openstl(tmp_path / "best.ckpt").items())


def test_file_that_names_code_is_not_read(tmp_path: Path) -> None:
    torch.save({"hparams": argparse.Namespace(lr=1), "state_dict": tau()}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a.ckpt needs argparse.Namespace, which is code"):
        load_openstl(tmp_path / "a.ckpt")


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
