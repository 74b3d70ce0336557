"""The compiled compositing against the reference, in value and in every gradient, and what it promises as an operator."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdr_cli import splat
from pdr_cli.splat import build, compose_reference, native
from pdr_cli.splat.compose import compose
from tests.splat.conftest import value_and_gradients
from tests.splat.projected import Inputs, check, projected
from tests.splat.test_native import OTHER_LEVELS, in_a_new_process, strided

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))


def compiled(size: tuple[int, int]) -> Callable[..., Tensor]:
    return partial(compose, size=size, backend="cpu")


def compare(inputs: tuple[Tensor, ...], size: tuple[int, int]) -> None:
    check(compiled(size), inputs, size)


SIZES = [(20, 33), (1, 1), (1, 40), (33, 1), (64, 64), (130, 70), (31, 130), (16, 16)]
CASES = [(2, 30, 3, size) for size in SIZES] + [(1, 1, 1, (9, 12)), (3, 300, 4, (40, 24)), (5, 40, 7, (17, 19))]


@pytest.mark.parametrize(("frames", "gaussians", "channels", "size"), CASES)
def test_equals_the_reference_in_value_and_every_gradient(frames, gaussians, channels, size):
    compare(projected(frames, gaussians, channels, size), size)


@pytest.mark.parametrize("channels", [0, 1, 3, 4, 7, 40])
def test_any_number_of_features(channels):
    compare(projected(2, 50, channels, (24, 35)), (24, 35))


@pytest.mark.parametrize("gaussians", [1000, 5000])
def test_thousands_of_gaussians(gaussians):
    compare(projected(1, gaussians, 3, (24, 20), opacity=(0, 0.3)), (24, 20))


@pytest.mark.parametrize("opacity", [(0.9, 1.0), (0.99, 1.5), (3.0, 9.0)])
def test_opaque_gaussians(opacity):
    compare(projected(1, 60, 3, (20, 24), opacity=opacity), (20, 24))


def test_a_pile_of_opaque_gaussians_has_gradients_to_its_top():
    """300 times 1 - 0.99 is 10^-600, which no float holds; the first Gaussian still has its gradient."""
    centre, conic, opacity, features = projected(1, 300, 2, (9, 9), opacity=(0.5, 3.0))
    compare((centre * 0.1 + 4, conic, opacity, features), (9, 9))
    _, *gradients = value_and_gradients(compiled((9, 9)), (centre, conic, opacity, features))
    assert all(x[:, :2].any() for x in gradients)


@pytest.mark.parametrize("widths", [(0.55, 30.0), (20.0, 300.0), (0.05, 0.2)])
def test_thin_wide_and_narrow_gaussians(widths):
    size = (40, 37)
    inputs = projected(1, 25, 3, size, widths=widths)
    found = value_and_gradients(compiled(size), inputs)
    double = [x.detach().double().requires_grad_() for x in inputs]
    expected = value_and_gradients(lambda *x: compose_reference.compose(*x, size), double)
    rounded = value_and_gradients(lambda *x: compose_reference.compose(*x, size), inputs)
    for a, b, c in zip(found, expected, rounded, strict=True):
        # What float32 rounds worse in plain torch, such as the place of a thin, oblique Gaussian, may be as bad here.
        error, unavoidable = ((x - b).abs().max() / b.abs().max() for x in (a, c))
        assert error <= max(1e-5, 2 * unavoidable)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    count=st.integers(1, 60),
    channels=st.integers(1, 6),
    opaque=st.sampled_from([0.2, 1.0, 2.0]),
    widest=st.sampled_from([1.0, 4.0, 12.0]),
    seed=st.integers(0, 10**6),
)
def test_any_shape(height, width, count, channels, opaque, widest, seed):
    size = (height, width)
    compare(projected(2, count, channels, size, opacity=(0, opaque), widths=(0.5, widest), seed=seed), size)


def test_frames_without_a_gaussian_that_shows():
    size = (12, 14)
    centre, conic, opacity, features = projected(3, 20, 2, size)
    with torch.no_grad():
        opacity[0] = 0  # pruned
        opacity[1] = -1
        centre[2] += 500
    image, *gradients = value_and_gradients(compiled(size), (centre, conic, opacity, features))
    assert not image.any()
    assert not any(x.any() for x in gradients)


@pytest.mark.parametrize(("frames", "count"), [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_draw(frames, count):
    inputs = projected(1, 5, 2, (10, 12))
    inputs = tuple(
        x.detach()[:, :count].expand(frames, *x[:, :count].shape[1:]).clone().requires_grad_() for x in inputs
    )
    image = compiled((10, 12))(*inputs)
    assert image.shape == (frames, 3, 10, 12)
    assert not image.any()
    assert [x.shape for x in torch.autograd.grad(image.sum(), inputs)] == [x.shape for x in inputs]


@pytest.mark.parametrize("far", [1e4, 1e9, 3e38])
def test_a_gaussian_far_outside_draws_nothing(far):
    _, conic, opacity, features = projected(1, 4, 1, (20, 20))
    centre = torch.tensor([[[far, 0.0], [-far, 0.0], [0.0, far], [0.0, -far]]]).requires_grad_()
    image, *gradients = value_and_gradients(compiled((20, 20)), (centre, conic, opacity, features))
    assert not image.any()
    assert not any(x.any() for x in gradients)


def test_a_conic_of_zero_covers_the_frame_evenly():
    features = torch.ones(1, 1, 1)
    image = compose(
        torch.zeros(1, 1, 2), torch.zeros(1, 1, 3), torch.tensor([[0.25]]), features, size=(40, 30), backend="cpu"
    )
    assert torch.equal(image, torch.full((1, 2, 40, 30), 0.25))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_gaussian_that_is_nowhere_does_not_vanish_silently(which, bad):
    inputs = [x.detach().clone() for x in projected(2, 6, 2, (40, 20))]
    inputs[which][0, 3] = bad
    leaves = [x.requires_grad_() for x in inputs]
    image, *gradients = value_and_gradients(compiled((40, 20)), tuple(leaves))
    assert image[0].isnan().all()
    assert image[1].isfinite().all()
    assert all(x[0, 3].isnan().all() for x in gradients)
    assert all(x[1].isfinite().all() for x in gradients)
    assert all(x[0, :3].isfinite().all() for x in gradients)


def test_inputs_and_gradients_need_not_be_contiguous():
    size = (12, 14)
    inputs = [x.detach() for x in projected(2, 9, 3, size)]
    apart = [strided(x).requires_grad_() for x in inputs]
    assert not any(x.is_contiguous() for x in apart)
    together = [x.clone().requires_grad_() for x in inputs]
    summed = torch.autograd.grad(compiled(size)(*apart).sum(), apart)  # sends back an expanded tensor
    expected = torch.autograd.grad(compiled(size)(*together), together, torch.ones(2, 4, *size))
    assert all(torch.equal(a, b) for a, b in zip(summed, expected, strict=True))


def test_leading_dimensions_are_frames():
    inputs = [x.detach().unflatten(0, (2, 3)) for x in projected(6, 8, 2, (12, 14))]
    image = compiled((12, 14))(*inputs)
    assert image.shape == (2, 3, 3, 12, 14)
    assert torch.equal(image[1, 2], compiled((12, 14))(*(x[1, 2] for x in inputs)))


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("frames", "channels"), [(1, 1), (1, 4), (2, 3), (7, 2)])
def test_bitwise_the_same_on_any_number_of_threads(frames, channels):
    size = (100, 50)  # four bands of rows
    inputs = projected(frames, 700, channels, size, widths=(0.5, 12.0))
    results = []
    for threads in (1, 2, 3, 5, 1):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(compiled(size), inputs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_frame_is_bitwise_the_same_in_a_batch():
    inputs = projected(7, 60, 2, (40, 20))
    alone = [x[2:3].detach().requires_grad_() for x in inputs]
    images = [compiled((40, 20))(*x) for x in (inputs, alone)]
    assert torch.equal(images[0][2:3], images[1])
    gradients = [torch.autograd.grad(y.square().sum(), x) for y, x in zip(images, (inputs, alone), strict=True)]
    assert all(torch.equal(a[2:3], b) for a, b in zip(*gradients, strict=True))


@pytest.mark.usefixtures("_threads")
def test_bands_that_are_tasks_of_their_own_equal_the_reference():
    torch.set_num_threads(3)
    compare(projected(1, 600, 3, (70, 20)), (70, 20))


def test_deterministic_algorithms_allow_it_and_poison_no_result():
    inputs = projected(3, 40, 2, (17, 19))
    expected = value_and_gradients(compiled((17, 19)), inputs)
    torch.use_deterministic_algorithms(True)  # fills what is newly allocated with NaN
    try:
        assert torch.empty(3).isnan().all()
        found = value_and_gradients(compiled((17, 19)), inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_memory_that_was_used_before_leaves_no_trace():
    # glibc fills what it hands out with 0xfe, as floats -1.7e38.
    in_a_new_process(
        """
        from tests.splat.test_compose import CASES, compare, projected
        for frames, gaussians, channels, size in CASES:
            compare(projected(frames, gaussians, channels, size), size)
        """,
        MALLOC_PERTURB_="1",
    )


@pytest.mark.skipif(not build.cpu_level().startswith("x86-64"), reason="levels of x86 processors")
@pytest.mark.parametrize("capability", OTHER_LEVELS)
def test_lesser_processors_render_the_same(capability):
    output = in_a_new_process(
        """
        from pdr_cli.splat import build
        from tests.splat.test_compose import CASES, compare, projected
        for frames, gaussians, channels, size in CASES:
            compare(projected(frames, gaussians, channels, size), size)
        compare(projected(1, 60, 3, (20, 24), opacity=(0.99, 3.0)), (20, 24))
        print(build.cpu_level())
        """,
        ATEN_CPU_CAPABILITY=capability,
    )
    assert output.split()[-1] == OTHER_LEVELS[capability]


def test_opcheck_finds_nothing():
    inputs = projected(2, 5, 3, (10, 12))
    torch.library.opcheck(torch.ops.predgsplat.compose.default, (*inputs, 10, 12))
    _, state = torch.ops.predgsplat.compose.default(*inputs, 10, 12)
    detached = [x.detach() for x in inputs]
    grad_image = torch.randn(2, 4, 10, 12)
    torch.library.opcheck(torch.ops.predgsplat.compose_backward.default, (grad_image, state.detach(), *detached))


def test_compiles_without_a_break():
    inputs = projected(2, 9, 2, (12, 14))

    def loss(*x: Tensor) -> Tensor:
        return compose(*x, size=(12, 14)).square().sum()

    optimised = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(optimised(*inputs), loss(*inputs))
    found, expected = (torch.autograd.grad(f(*inputs), inputs) for f in (optimised, loss))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def second_derivatives(backend: str, inputs: Inputs) -> tuple[Tensor, ...]:
    image = compose(*inputs, size=(12, 14), backend=backend)
    gradients = torch.autograd.grad(image.square().sum(), inputs, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs)


def test_second_derivatives_come_from_the_reference():
    inputs = projected(1, 5, 2, (12, 14), opacity=(0.1, 0.9))
    for a, b in zip(second_derivatives("cpu", inputs), second_derivatives("reference", inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * b.abs().max().item(), rtol=0)


def test_the_reference_computes_under_transforms():
    inputs = [x.detach() for x in projected(3, 4, 1, (6, 7))]
    draw = partial(compose, size=(6, 7))
    torch.testing.assert_close(torch.func.vmap(draw)(*inputs), draw(*inputs))
    tangents = [torch.ones_like(x) for x in inputs]
    assert torch.func.jvp(draw, tuple(inputs), tuple(tangents))[1].any()
    with pytest.raises(splat.RendererUnavailable, match=r"'cpu' does not run in torch\.func's transforms"):
        torch.func.vmap(partial(draw, backend="cpu"))(*inputs)


def test_a_graph_for_elsewhere_holds_the_reference():
    class Draw(torch.nn.Module):
        def forward(self, *inputs):
            return compose(*inputs, size=(12, 14))

    inputs = tuple(x.detach() for x in projected(2, 9, 2, (12, 14)))
    exported = torch.export.export(Draw(), inputs)
    assert not any("predgsplat" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*inputs), Draw()(*inputs), atol=1e-5, rtol=0)


def test_other_precisions():
    inputs = projected(1, 9, 2, (12, 14))
    expected = compiled((12, 14))(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled((12, 14))(*inputs), expected)
    half = [x.detach().bfloat16().requires_grad_() for x in inputs]
    image = compiled((12, 14))(*half)
    assert image.dtype == torch.float32
    assert all(x.dtype == torch.bfloat16 for x in torch.autograd.grad(image.sum(), half))
    double = [x.detach().double() for x in inputs]
    assert compose(*double, size=(12, 14)).dtype == torch.float64
    with pytest.raises(splat.RendererUnavailable, match="'cpu' renders in float32"):
        compose(*double, size=(12, 14), backend="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": torch.zeros(6)}, r"centre has shape \[6\]; expected \[..., N, 2\]"),
        ({"conic": torch.ones(1, 6, 2)}, r"conic has shape \[1, 6, 2\]; .* expected \[1, 6, 3\]"),
        ({"opacity": torch.ones(1, 5)}, r"opacity has shape \[1, 5\]; .* expected \[1, 6\]"),
        ({"features": torch.ones(6, 3)}, r"features has shape \[6, 3\]; .* expected \[1, 6, C\]"),
        (
            {"features": torch.ones(1, 6, 3, dtype=torch.complex64)},
            "features is torch.complex64; expected a tensor of real",
        ),
        ({"size": (0, 22)}, r"size is \(0, 22\)"),
        ({"backend": "fast"}, "backend='fast' is not a renderer"),
    ],
)
def test_says_what_does_not_fit(change, message):
    inputs = dict(zip(("centre", "conic", "opacity", "features"), projected(1, 6), strict=True))
    with pytest.raises(ValueError, match=message):
        compose(**{**inputs, "size": (20, 22), **change})


# name: (file, right, wrong). Each is compiled in and chosen at run time, so that one build has them all.
MUTATIONS = {
    "a zeroed gradient": ("compose.h", "-0.5f * sxx, -sxy", "-0.5f * sxx, 0.0f * sxy"),
    "gradients in another order": ("compose.h", "b * sx + c * sy", "a * sx + b * sy"),
    "an opacity's gradient": ("compose.h", "s / opacity", "s"),
    "Gaussians behind are forgotten": ("compose_cpu.cpp", "after * inverse", "0.0f * after"),
    "a gradient through the limit": ("compose_cpu.cpp", "unlimited <= MAX_ALPHA", "unlimited <= 9.0f"),
    "no weight": ("compose_cpu.cpp", "rows, 1.0f, weight", "rows, 0.5f, weight"),
}


def mutable(folder, mutations: dict[str, tuple[str, str, str]]) -> None:
    """Put every mutation into the sources: the variable `mutation` of the library chooses one; 0 is none."""
    for number, (file, right, wrong) in enumerate(mutations.values(), start=1):
        text = (folder / file).read_text()
        assert text.count(right) == 1, right
        parts = zip(right.split(", "), wrong.split(", "), strict=True)
        choice = ", ".join(a if a == b else f"(compose_mutation == {number} ? {b} : {a})" for a, b in parts)
        (folder / file).write_text(text.replace(right, choice))
    variable = 'extern "C" { [[gnu::weak, gnu::visibility("default")]] int compose_mutation = 0; }'
    header = folder / "compose.h"
    header.write_text(header.read_text().replace("#pragma once", f"#pragma once\n{variable}", 1))


@pytest.fixture(scope="module")
def noticed(tmp_path_factory, compiler) -> dict[str, str]:
    """What the comparison with the reference says of each mutation, and of the code without one (None, under "")."""
    folder = tmp_path_factory.mktemp("mutations") / "predgsplat"
    shutil.copytree(build.sources_folder(), folder)
    mutable(folder, MUTATIONS)
    output = in_a_new_process(
        f"""
        import ctypes, json
        from pathlib import Path
        from pdr_cli.splat import build
        build.sources_folder = lambda: Path({str(folder)!r})
        build.CXX_FLAGS = build.CXX_FLAGS.replace("-O3", "-O0")
        from tests.splat.test_compose import MUTATIONS, compare, projected
        mutation = ctypes.c_int.in_dll(ctypes.CDLL(str(build.library("cpu"))), "compose_mutation")
        found = {{}}
        for number, name in enumerate(["", *MUTATIONS]):
            mutation.value = number
            try:
                found[name] = compare(projected(1, 40, 2, (20, 24), opacity=(0.3, 1.6)), (20, 24))
            except AssertionError as error:
                found[name] = str(error)
        print(json.dumps(found))
        """,
        PREDGSPLAT_CACHE=str(folder.parent),
        CXX=compiler,
        KEPT="*[sd].cpp.o",  # all but compose_cpu.cpp
    )
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_the_mathematics_is_noticed(name, noticed):
    assert noticed[""] is None, "without a mutation, the code is right"
    assert "of its maximum" in (noticed[name] or "")
