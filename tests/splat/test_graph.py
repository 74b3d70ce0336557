"""What the CUDA graph of a render accepts; tests/gpu captures one."""

from __future__ import annotations

import pytest
import torch

from pdr_cli import splat
from pdr_cli.splat.backends import RendererUnavailable
from pdr_cli.splat.graph import Graphed, graphed

OPTIONS = {"size": (8, 9), "kernel_size": 7}


def test_gaussians_on_a_cpu_are_refused_in_one_line(gaussians):
    with pytest.raises(RendererUnavailable) as refused:
        graphed(*gaussians(), **OPTIONS)
    assert str(refused.value) == "a CUDA graph needs Gaussians on a CUDA device, and these are on cpu"


@pytest.fixture
def replayed(gaussians) -> Graphed:
    """A `Graphed` that renders instead of replaying."""
    inputs = tuple(x.detach() for x in gaussians(batch=(2,)))
    return Graphed(lambda *x: splat.render(*x, **OPTIONS), inputs, differentiable=False)


def test_inputs_like_those_captured_are_rendered(replayed, gaussians):
    inputs = [x.detach() for x in gaussians(batch=(2,), seed=1)]
    assert torch.equal(replayed(*inputs), splat.render(*inputs, **OPTIONS))


@pytest.mark.parametrize("change", [lambda x: x[:1], lambda x: x.float(), lambda x: x.to("meta")])
@pytest.mark.parametrize("which", range(4))
def test_other_shapes_types_and_devices_are_refused(replayed, change, which):
    inputs = list(replayed.inputs)
    inputs[which] = change(inputs[which])
    with pytest.raises(ValueError, match=f"^{('coords', 'scale', 'rotation', 'amplitudes')[which]} is .* captured for"):
        replayed(*inputs)


def test_gradients_that_were_not_captured_are_refused(replayed):
    inputs = [x.clone().requires_grad_() for x in replayed.inputs]
    with pytest.raises(ValueError, match="captured without gradients"):
        replayed(*inputs)
    with torch.no_grad():
        assert torch.equal(replayed(*inputs), replayed(*replayed.inputs))
