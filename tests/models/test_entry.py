"""`PDR.forward` is the only entry of the network: whatever wraps a module goes through it, in training too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from pdr_cli.models.interfaces import Batch, Forecast, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.models.registry import build
from tests.models.builders import options, training_batch

SMALL = {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0, "adapter": "local"}


def small(backbone: str = "convlstm") -> PDR:
    torch.manual_seed(0)
    return build(options(backbone=backbone, **SMALL), Frames(3, 1, (8, 8))).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return training_batch(*(torch.rand(2, steps, 1, 8, 8, generator=generator) for steps in (3, 4)), progress=0.5)


def gradients(network: nn.Module, parameters: Iterator[nn.Parameter], out: Forecast) -> list[Tensor]:
    (out.fused.square().mean() + sum(out.terms.values())).backward()
    return [torch.zeros(()) if p.grad is None else p.grad.clone() for p in parameters]


def expected(backbone: str = "convlstm") -> list[Tensor]:
    network = small(backbone)
    torch.manual_seed(2)
    return gradients(network, network.parameters(), network(batch(), "train"))


@pytest.mark.parametrize("backbone", ["convlstm", "wast", "tau"])
def test_a_checkpointed_pass_has_the_same_gradients(backbone: str) -> None:
    network = small(backbone)
    torch.manual_seed(2)
    out = checkpoint(network, batch(), "train", use_reentrant=False)
    found = gradients(network, network.parameters(), out)
    assert all(torch.equal(a, b) for a, b in zip(found, expected(backbone), strict=True))


def test_data_parallel_training_sees_the_predictors_own_pass(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network = DistributedDataParallel(small())
        torch.manual_seed(2)
        out = network(batch(), "train")
        assert "observed_loss" in out.terms
        found = gradients(network, network.parameters(), out)
    finally:
        dist.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(found, expected(), strict=True))


def test_batches_and_forecasts_are_pytrees() -> None:
    leaves = pytree.tree_leaves(batch())
    assert [type(leaf) for leaf in leaves] == [Tensor, int, Tensor, type(None), float] + 8 * [type(None)] + [bool]
    moved = pytree.tree_map_only(Tensor, torch.zeros_like, small()(batch(), "train"))
    assert isinstance(moved, Forecast)
    assert not moved.fused.any()


@pytest.mark.slow  # tests/commands/test_export.py writes whole models
def test_an_exported_graph_takes_any_batch() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small("tau").eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(Batch(x, 4)).fused

    graph, x = Graph().eval(), torch.rand(2, 3, 1, 8, 8)
    with torch.no_grad():
        program = torch.export.export(graph, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
        assert torch.allclose(program.module()(x[:1]), graph(x[:1]), atol=1e-6)


@pytest.mark.slow
def test_a_compiled_network_computes_the_same() -> None:
    network = small("tau").eval()
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(batch()).fused, network(batch()).fused, atol=1e-6)
