"""Preparation of a network before its first step."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pdr_cli.training.setup import parameter_groups

# A page is 4 KB, so that 64 MB are 16384 of them.
FAULTS = """
import resource, torch
from pdr_cli.system.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
for _ in range(20):  # the alignment of the first ones leaves gaps: up to 8 where two threads share the work
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    """Pages that the system has to find for 64 MB that were freed a moment ago."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    kept, count = map(int, done.stdout.split())
    if keep and not kept:
        pytest.skip("the C library is not glibc")
    return count


def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert faults(keep=True) < 1000 < faults(keep=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 1, 1)  # weight (1, 4, 1, 1): one row, still a weight
        self.norm = nn.BatchNorm2d(4)
        self.layer_scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_weights_of_layers_decay() -> None:
    net = Net()
    decayed, spared = parameter_groups(net, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert spared["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(net.conv.weight)]
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (net.conv.bias, net.norm.weight, net.norm.bias, net.layer_scale)
    }


def test_groups_work_in_adamw_and_decay_moves_only_weights() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(parameter_groups(net, 0.5), lr=0.1)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
    assert moved == ["conv.weight"]
