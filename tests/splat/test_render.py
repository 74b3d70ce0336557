"""The public face: which backend runs, and what it says about inputs that do not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pdr_cli import splat
from pdr_cli.splat import backends, reference


@pytest.fixture(autouse=True)
def _no_override(monkeypatch):
    monkeypatch.delenv(splat.ENVIRONMENT, raising=False)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_renders_the_reference(gaussians, backend):
    inputs = gaussians(channels=2)
    found = splat.render(*inputs, size=(20, 22), kernel_size=9, normalize="density", backend=backend)
    torch.testing.assert_close(found, reference.render(*inputs, (20, 22), 9, "density"))


@pytest.mark.parametrize("sampling", splat.SAMPLINGS)
def test_renders_the_sampling_that_is_asked_for(gaussians, sampling):
    inputs = gaussians(channels=2)
    found = splat.render(*inputs, size=(20, 22), kernel_size=9, sampling=sampling)
    torch.testing.assert_close(found, reference.render(*inputs, (20, 22), 9, "peak", sampling))


def test_active_backend_gives_its_reason():
    name, reason = splat.active_backend("cpu")
    assert name in splat.BACKENDS
    assert name != "auto"
    assert reason


def test_the_environment_overrides_auto_but_not_a_name(gaussians, monkeypatch):
    monkeypatch.setenv(splat.ENVIRONMENT, "reference")
    assert splat.active_backend("cpu") == ("reference", "requested by PREDGSPLAT_BACKEND=reference")
    monkeypatch.setenv(splat.ENVIRONMENT, "gpu")
    with pytest.raises(ValueError, match="PREDGSPLAT_BACKEND=gpu is not a renderer; expected one of auto, reference"):
        splat.render(*gaussians(), size=(20, 22), kernel_size=9)
    assert splat.render(*gaussians(), size=(20, 22), kernel_size=9, backend="reference").shape == (1, 20, 22)


def test_a_named_backend_that_is_not_there_is_an_error(gaussians, monkeypatch):
    monkeypatch.setattr(splat.native, "unavailable", lambda kind: "there is no compiler")
    inputs = gaussians(dtype=torch.float32)
    with pytest.raises(splat.RendererUnavailable, match="backend='cpu', but there is no compiler; backend='reference'"):
        splat.render(*inputs, size=(20, 22), kernel_size=9, backend="cpu")
    monkeypatch.setenv(splat.ENVIRONMENT, "cpu")
    with pytest.raises(splat.RendererUnavailable, match="PREDGSPLAT_BACKEND=cpu, but there is no compiler"):
        splat.render(*inputs, size=(20, 22), kernel_size=9)


def test_a_backend_for_another_device_is_an_error(gaussians):
    with pytest.raises(splat.RendererUnavailable, match="backend='cuda', but the Gaussians are on cpu"):
        splat.render(*gaussians(), size=(20, 22), kernel_size=9, backend="cuda")


def test_a_graph_for_elsewhere_holds_the_reference(gaussians):
    class Draw(torch.nn.Module):
        def forward(self, *inputs):
            return splat.render(*inputs, size=(20, 22), kernel_size=9)

    inputs = tuple(x.detach() for x in gaussians(dtype=torch.float32))
    exported = torch.export.export(Draw(), inputs)
    assert not any("predgsplat" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*inputs), Draw()(*inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coords": torch.zeros(6)}, r"coords has shape \[6\]; expected \[..., N, 2\]"),
        ({"scale": torch.ones(6)}, r"scale has shape \[6\]; .* expected \[6, 2\]"),
        ({"scale": torch.ones(5, 2)}, r"scale has shape \[5, 2\]; .* expected \[6, 2\]"),
        ({"rotation": torch.zeros(6, 1)}, r"rotation has shape \[6, 1\]; .* expected \[6\]"),
        ({"amplitudes": torch.zeros(6)}, r"amplitudes has shape \[6\]; .* expected \[6, C\]"),
        ({"amplitudes": torch.zeros(5, 2)}, r"amplitudes has shape \[5, 2\]; .* expected \[6, C\]"),
        ({"size": (0, 22)}, r"size is \(0, 22\)"),
        ({"size": (22,)}, r"size is \(22,\)"),
        ({"kernel_size": 8}, "kernel_size is 8"),
        ({"kernel_size": 9.5}, "kernel_size is 9.5; expected an odd number"),
        ({"sampling": "exact"}, "sampling is 'exact'; expected one of lattice, analytic"),
        ({"sampling": "analytic", "kernel_size": 1.0}, "kernel_size is 1.0; expected a number above 1"),
        ({"normalize": "sum"}, "normalize is 'sum'; expected one of peak, density"),
        ({"backend": "fast"}, "backend='fast' is not a renderer"),
    ],
)
def test_says_what_does_not_fit(gaussians, change, message):
    inputs = dict(zip(("coords", "scale", "rotation", "amplitudes"), gaussians(), strict=True))
    options = {"size": (20, 22), "kernel_size": 9}
    with pytest.raises(ValueError, match=message):
        splat.render(**{**inputs, **options, **change})


def test_the_choice_of_a_backend_is_marked_as_torch_marks_it():
    def same():
        pass

    torch.compiler.assume_constant_result(same)
    assert vars(backends.select) == vars(same)


def test_torchs_compiler_is_not_imported():
    code = "import sys, pdr_cli.models.pdr; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "it takes 2 s"
