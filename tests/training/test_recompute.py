"""Stages that run again in the backward pass: the same gradients from less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.layers import NormedSiLU
from pdr_cli.models.pdr import PDR
from pdr_cli.training import step
from pdr_cli.training.footprint import Live
from pdr_cli.training.randomness import Randomness
from tests.models.builders import options

FRAMES = Frames(2, 2, (24, 32), out_steps=2)
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"backbone": "unet", "hid_s": 8, "hid_t": 8, "n_s": 4, "n_t": 2, "dropout": 0.3},
    "tau": {"backbone": "tau", "hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 3, "drop_path": 0.5, "anchor": "none"},
    "noise": {"backbone": "unet", "hid_s": 8, "hid_t": 8, "n_s": 4, "n_t": 2, "dropout": 0.3, "noise": 4},
    "convlstm": {
        "backbone": "convlstm",
        "hid_s": 8,
        "hid_t": 8,
        "n_s": 2,
        "n_t": 2,
        "anchor": "none",
        "fusion": "none",
    },
}


def network(name: str, frames: Frames = FRAMES) -> PDR:
    torch.manual_seed(0)
    built = registry.build(options(adapter="local", **NETWORKS[name]), frames).train()
    for parameter in built.parameters():  # some layers begin at zero
        nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else None
    return built


def batch(frames: Frames, steps: int, windows: int = 3, seeds: Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(1)
    x, y = (torch.rand(windows, n, frames.channels, *frames.size, generator=random) for n in (frames.in_steps, steps))
    return frames.blank(steps, windows)._replace(observed=x, target=y, seeds=seeds)


def outcome(name: str, recompute: bool, at_once: int, seeds: Tensor | None = None) -> dict[str, Tensor]:
    """Forecast, gradients, running means of batch norms and the next random number of a step."""
    built = network(name)
    made = step.forward_in_parts(
        built, batch(FRAMES, 4, seeds=seeds), at_once, Randomness(built, torch.device("cpu")), recompute
    )
    (made.fused.square().mean() + sum(made.terms.values(), torch.zeros(()))).backward()
    found = {name: p.grad for name, p in built.named_parameters() if p.grad is not None}
    return {"fused": made.fused, "drawn": torch.rand(1), **found, **dict(built.named_buffers())}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("at_once", [3, 2])
def test_the_step_is_the_same_to_the_bit(name: str, at_once: int) -> None:
    """Four frames, so that those that give two are fed back and draw their noise twice."""
    seeds = torch.arange(3) if name == "noise" else None
    plain, again = (outcome(name, recompute, at_once, seeds) for recompute in (False, True))
    assert plain.keys() == again.keys()
    assert len(plain) > 5
    different = [key for key in plain if not torch.equal(plain[key], again[key])]
    assert not different


def most(name: str, recompute: bool) -> int:
    frames = FRAMES._replace(size=(96, 96))
    built, given = network(name, frames), batch(frames, 2)
    for module in built.modules():
        if isinstance(module, NormedSiLU):
            module.compiled = False  # the kernel keeps less of what recomputing frees
    randomness = Randomness(built, torch.device("cpu"))
    with Live() as live:
        step.forward_in_parts(built, given, 3, randomness, recompute).fused.square().mean().backward()
    return live.most


@pytest.mark.parametrize("name", ["unet", "tau"])
def test_it_takes_less_memory(name: str) -> None:
    plain, again = most(name, recompute=False), most(name, recompute=True)
    print(name, plain / 1e6, again / 1e6)
    assert again < 0.6 * plain


def test_the_network_is_as_it_was_afterwards() -> None:
    built = network("unet")
    step.forward_in_parts(built, batch(FRAMES, 2), 3, Randomness(built, torch.device("cpu")), recompute=True)
    assert not [name for name, module in built.named_modules() if {"forward", "training_forward"} & set(vars(module))]


def test_a_frozen_predictor_is_not_run_again() -> None:
    built = network("tau")
    built.freeze_predictor()
    runs: list[int] = []
    built.predictor.register_forward_hook(lambda *_: runs.append(1))
    made = step.forward_in_parts(built, batch(FRAMES, 2), 3, Randomness(built, torch.device("cpu")), recompute=True)
    made.fused.mean().backward()
    assert len(runs) == 1
