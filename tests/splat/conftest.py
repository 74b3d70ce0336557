"""Random Gaussians and comparisons that the renderer's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from pdr_cli.splat import build, native, node
from tests.splat import on_cpu
from tests.splat.on_cpu import HERE, KERNELS

# A compiler that copies an object which it made before, by name: for tests that build the same sources again.
# $KEPT: which objects are kept; $WAIT: seconds before ops.cpp.o is there.
COMPILER = """#!/bin/sh
for object; do :; done
case "$object" in
    ops.cpp.o) sleep "${{WAIT:-0}}" ;;
esac
case "$object" in
    ${{KEPT:-*.cpp.o}}) ;;
    *) exec {cxx} "$@" ;;
esac
kept="{folder}/$object"
test -e "$kept" && exec cp "$kept" "$object"
{cxx} "$@" && cp "$object" "$kept.$$" && mv "$kept.$$" "$kept"
"""


def random_gaussians(
    batch: tuple[int, ...] = (),
    gaussians: int = 6,
    channels: int = 1,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """coords [..., N, 2], scale [..., N, 2] in 0.1-1, rotation [..., N], amplitudes [..., N, C]; all need gradients."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        x = torch.rand(*batch, gaussians, *shape, generator=random, dtype=torch.float64) * (high - low) + low
        return x.to(dtype).requires_grad_()

    return (
        uniform(2, low=-1.2, high=1.2),  # some centres lie outside the frame
        uniform(2, low=0.1, high=1.0),
        uniform(low=-1.5, high=1.5),
        uniform(channels, low=-1.0, high=1.0),
    )


def value_and_gradients(render: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The image and the gradients of a random weighting of its pixels."""
    image = render(*inputs)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return image, *torch.autograd.grad(image, inputs, weights.to(image.dtype))


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    """Compare relative to each tensor's largest entry, since single entries may cancel to nothing."""
    for name, a, b in zip(("image", "coords", "scale", "rotation", "amplitudes"), found, expected, strict=True):
        error = (a - b).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name} differs by {error:.2e} of its maximum"


@pytest.fixture(scope="session")
def gaussians() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    return random_gaussians


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., tuple[Tensor, ...]]:
    return value_and_gradients


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    return assert_same


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels of the renderer, compiled for a CPU; once for all processes of a test run."""
    sources = (KERNELS / "cuda_forward.cu", KERNELS / "cuda_backward.cu", HERE / "cuda_on_cpu.cpp")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return on_cpu.build(tmp_path_factory.mktemp("cuda_on_cpu"), *sources)
    folder = tmp_path_factory.getbasetemp().parent / "cuda_on_cpu"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        built = folder / "built"  # whole, because it is named when the program is there
        if not built.exists():
            on_cpu.build(folder, *sources)
            built.touch()
    return folder / "program"


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of `COMPILER`, for $CXX; its builds must all have the same flags, and the same sources of what is kept."""
    folder = tmp_path_factory.mktemp("objects")
    path = folder / "cxx"
    path.write_text(COMPILER.format(cxx=build._cxx(), folder=folder))
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="session")
def node_library() -> Path:
    """The autograd node in the cache of whoever runs the tests; its build takes a quarter of a minute."""
    try:
        return build.library("node")
    except build.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def direct(node_library: Path) -> Callable[..., Tensor | None]:
    """The node; other tests run without it."""
    return node.load(node_library, native.load("cpu").path)


@pytest.fixture(params=["node", "python"])
def each_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the autograd node in C++ and without."""
    monkeypatch.setattr(node, "direct", request.getfixturevalue("direct") if request.param == "node" else None)
