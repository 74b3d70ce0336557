"""The autograd node in C++: the results of the path through Python, bit for bit, and a path through Python without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.splat import build, derivatives, native, node
from tests.splat.conftest import random_gaussians, value_and_gradients
from tests.splat.test_native import CASES, SAMPLINGS, native_render

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))


@pytest.fixture
def calls(direct, monkeypatch) -> list[str]:
    """Which path each call took: "node" or "python"."""
    taken = []

    def counted(*arguments: object) -> Tensor | None:
        image = direct(*arguments)
        taken.append("python" if image is None else "node")
        return image

    monkeypatch.setattr(node, "direct", counted)
    return taken


def in_python(function, *arguments, monkeypatch):
    """The same without the node."""
    with monkeypatch.context() as change:
        change.setattr(node, "direct", None)
        return function(*arguments)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize(("H", "W", "K"), CASES)
def test_the_same_bits_as_through_python(H, W, K, channels, sampling, calls, monkeypatch):
    inputs = random_gaussians((2, 3), 20, channels, torch.float32)
    render = native_render((H, W), K, sampling)
    found = value_and_gradients(render, inputs)
    assert calls == ["node"]
    expected = in_python(value_and_gradients, render, inputs, monkeypatch=monkeypatch)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("frames", "count"), [(0, 5), (3, 0)])
def test_nothing_to_draw(frames, count, calls):
    inputs = random_gaussians((frames,), count, 2, torch.float32)
    image = native_render((10, 12), 7)(*inputs)
    assert calls == ["node"]
    assert image.shape == (frames, 2, 10, 12)
    assert not image.any()
    assert [g.shape for g in torch.autograd.grad(image.sum(), inputs)] == [x.shape for x in inputs]


def test_only_what_requires_a_gradient_has_one(calls):
    coords, scale, rotation, amplitudes = (x.detach() for x in random_gaussians((), 5, 2, torch.float32))
    scale = torch.nn.Parameter(scale)
    image = native_render((10, 12), 7)(coords, scale, rotation, amplitudes)
    image.sum().backward()
    assert calls == ["node"]
    assert scale.grad is not None
    assert coords.grad is None
    with torch.no_grad():
        assert native_render((10, 12), 7)(coords, scale, rotation, amplitudes).grad_fn is None


def test_a_changed_input_and_a_second_backward_pass_are_errors_as_in_python(calls):
    inputs = random_gaussians((), 5, 1, torch.float32)
    scale = inputs[1] * 1.0
    image = native_render((10, 12), 7)(inputs[0], scale, *inputs[2:])
    with torch.no_grad():
        scale += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        image.sum().backward()
    image = native_render((10, 12), 7)(*inputs)
    image.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        image.sum().backward()
    assert calls == ["node", "node"]


def test_an_error_of_the_path_through_python_is_raised(calls, monkeypatch):
    def broken(*arguments):
        raise ArithmeticError("on purpose")

    monkeypatch.setattr(derivatives.TransformableGradients, "apply", broken)
    inputs = random_gaussians((), 5, 1, torch.float32)
    image = native_render((10, 12), 7)(*inputs)
    with pytest.raises(ArithmeticError, match="on purpose"):
        torch.autograd.grad(image.sum(), inputs, create_graph=True)
    assert calls == ["node"]


UNUSUAL = {
    "float64": lambda x, options: ([t.double() for t in x], options),
    "one in half precision": lambda x, options: ([x[0].bfloat16(), *x[1:]], options),
    "density": lambda x, options: (x, options | {"normalize": "density"}),
    "a backend by name": lambda x, options: (x, options | {"backend": "reference"}),
    "a list as the size": lambda x, options: (x, options | {"size": [10, 12]}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_call_that_is_not_plain_is_left_to_python(name, calls, monkeypatch):
    inputs = [x.detach() for x in random_gaussians((), 5, 2, torch.float32)]
    inputs, options = UNUSUAL[name](inputs, {"size": (10, 12), "kernel_size": 7})
    found = splat.render(*inputs, **options)
    assert calls == ["python"]
    assert torch.equal(found, in_python(lambda: splat.render(*inputs, **options), monkeypatch=monkeypatch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": 8}, "kernel_size is 8; expected an odd number"),
        ({"kernel_size": 10**30}, "kernel_size is 10*; expected an odd number"),
        ({"kernel_size": float("nan")}, "kernel_size is nan"),
        ({"kernel_size": 1, "sampling": "analytic"}, "kernel_size is 1; expected a number above 1"),
        ({"size": (0, 12)}, "size is .0, 12."),
        ({"size": (10, 12.0)}, "size is .10, 12.0."),
        ({"size": (10, 12, 3)}, "size is .10, 12, 3."),
        ({"sampling": "nearest"}, "sampling is 'nearest'"),
        ({"normalize": "area"}, "normalize is 'area'"),
        ({"backend": "gpu"}, "backend='gpu' is not a renderer"),
    ],
)
def test_invalid_options_get_the_messages_of_python(change, message, calls):
    inputs = random_gaussians((), 5, 1, torch.float32)
    with pytest.raises(ValueError, match=message):
        splat.render(*inputs, **{"size": (10, 12), "kernel_size": 7} | change)
    assert calls == ["python"]


@pytest.mark.parametrize("which", range(4))
def test_shapes_that_do_not_fit_get_the_messages_of_python(which, calls):
    inputs = [x.detach() for x in random_gaussians((2,), 5, 1, torch.float32)]
    inputs[which] = inputs[which][:, :4]
    with pytest.raises(ValueError, match="has shape"):
        splat.render(*inputs, size=(10, 12), kernel_size=7)
    assert calls == ["python"]


def test_the_environment_chooses_the_backend_of_later_calls_too(calls, monkeypatch):
    inputs = random_gaussians((), 5, 1, torch.float32)
    monkeypatch.setenv("PREDGSPLAT_BACKEND", "reference")
    splat.render(*inputs, size=(10, 12), kernel_size=7)
    monkeypatch.setenv("PREDGSPLAT_BACKEND", "")
    splat.render(*inputs, size=(10, 12), kernel_size=7)
    assert calls == ["python", "node"]


def test_a_profiler_sees_the_operator(calls):
    inputs = random_gaussians((), 5, 1, torch.float32)
    with torch.profiler.profile() as profile:
        native_render((10, 12), 7)(*inputs)
    assert "predgsplat::render" in {event.name for event in profile.events()}
    assert calls == ["python"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache without libraries, and the default way to a node."""
    monkeypatch.setenv(build.CACHE_ENVIRONMENT, str(tmp_path))
    monkeypatch.delenv(node.ENVIRONMENT, raising=False)
    monkeypatch.setattr(node, "direct", None)
    return tmp_path


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands of builds in the background, which are not run."""
    commands = []
    instead = SimpleNamespace(Popen=lambda command, **_: commands.append(command), DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(node, "subprocess", instead)
    return commands


def start() -> str:
    return node.start.__wrapped__(native.load("cpu").path)


def test_a_node_that_is_missing_is_built_in_the_background_once_a_day(empty_cache, started):
    assert "the next process uses it" in start()
    assert "its build is running" in start()
    (command,) = started
    attempt = empty_cache / command[-1]
    assert command[:3] == [sys.executable, "-c", node.START]
    os.utime(attempt, (time.time() - node.RETRY - 60,) * 2)
    assert "the next process uses it" in start()
    assert len(started) == 2
    assert node.direct is None


def test_a_build_that_fails_keeps_its_reason_and_is_not_repeated(empty_cache, started, tmp_path):
    start()
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'error: out of memory'; exit 1\n")
    compiler.chmod(0o755)
    (tmp_path / "dataclasses.py").write_text("raise ImportError('of the current folder')")
    subprocess.run(started[0], env=os.environ | {"CXX": str(compiler)}, check=True, timeout=300, cwd=tmp_path)
    assert start().startswith("the build failed: error: out of memory; see ")
    assert len(started) == 1
    assert node.direct is None


def test_a_build_that_succeeds_is_used_from_then_on(empty_cache, started, node_library, monkeypatch):
    start()
    monkeypatch.setattr(build, "_build", lambda recipe, path: shutil.copy(node_library, path))
    monkeypatch.setattr(node.os, "nice", lambda _: None)
    monkeypatch.setattr(sys, "argv", started[0][2:])
    node.main()
    assert [path.suffix for path in empty_cache.iterdir()] == [".so"]
    assert start() == ""
    assert node.direct is not None


def test_a_damaged_node_is_not_opened(empty_cache, started, node_library):
    build.cached("node").write_bytes(node_library.read_bytes()[:-1])
    assert "the next process uses it" in start()
    assert node.direct is None


def test_a_shipped_node_needs_no_compiler(empty_cache, started, node_library, monkeypatch, tmp_path):
    shipped = tmp_path / "prebuilt" / f"predgsplat-node-{build.python_and_torch()}.so"
    shipped.parent.mkdir()
    shutil.copy(node_library, shipped)
    monkeypatch.setattr(build, "sources_folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", "")
    assert start() == ""
    assert node.direct is not None


def test_off_is_off(empty_cache, started, monkeypatch):
    monkeypatch.setenv(node.ENVIRONMENT, "off")
    assert start() == "PREDGSPLAT_NODE=off"
    assert not started


def test_without_the_headers_of_python_the_reason_is_named(empty_cache, started, monkeypatch, tmp_path):
    monkeypatch.setattr(build.sysconfig, "get_paths", lambda: {"include": str(tmp_path / "nothing")})
    assert start() == f"no headers of Python found in {tmp_path / 'nothing'}"
    assert not started
