"""Weight decay leaves alone what it would harm."""

from __future__ import annotations

import torch
from torch import nn

from pdr_cli.training.optimizer import parameter_groups


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
