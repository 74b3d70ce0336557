"""The compiled renderer against the reference, in value and in every gradient, and what it promises as an operator."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdr_cli import splat
from pdr_cli.splat import build, literal, native, reference
from tests.splat.conftest import random_gaussians, value_and_gradients

pytestmark = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))

# Of the largest entry. float32 keeps 6e-8 of a number: a pixel position near 70 has lost 4e-6 px, which a Gaussian of
# 0.02 px, evaluated at pixel centres, makes twenty times as much. The float32 reference is off as far.
VALUE = 1e-5
GRADIENT = {"lattice": 1e-5, "analytic": 1e-4}
SAMPLINGS = tuple(GRADIENT)
NAMES = ("image", "coords", "scale", "rotation", "amplitudes")


def native_render(size, kernel_size, sampling="lattice", normalize="peak"):
    def run(*inputs):
        options = {"size": size, "kernel_size": kernel_size, "sampling": sampling, "normalize": normalize}
        return splat.render(*inputs, **options, backend="cpu")

    return run


def reference_render(size, kernel_size, sampling="lattice", normalize="peak"):
    return lambda *inputs: reference.render(*inputs, size, kernel_size, normalize, sampling)


def in_both(inputs, size, kernel_size, sampling="lattice", normalize="peak"):
    """Value and gradients of the compiled renderer, and those of the reference in float64 from the same float32 inputs."""
    single = tuple(x.detach().float().requires_grad_() for x in inputs)
    double = tuple(x.detach().double().requires_grad_() for x in single)
    found = value_and_gradients(native_render(size, kernel_size, sampling, normalize), single)
    return found, value_and_gradients(reference_render(size, kernel_size, sampling, normalize), double)


def check(inputs, size, kernel_size, sampling="lattice", normalize="peak", times=1):
    found, expected = in_both(inputs, size, kernel_size, sampling, normalize)
    assert all(x.dtype == torch.float32 for x in found)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        # Of 1 at least: a Gaussian is drawn down to 2^-24 of its peak, and with K = 3 its scale matters no more than that.
        error = (a - b).abs().max() / b.abs().max().clamp(min=1)
        assert error <= times * (VALUE if name == "image" else GRADIENT[sampling]), (
            f"{name} is off by {error:.1e} of its maximum"
        )


CASES = [  # H, W, K: square, not square, even and odd, K beyond the frame, one strip of lanes and many, rows alike to a cache
    (32, 32, 15),
    (33, 31, 15),
    (26, 54, 11),
    (5, 70, 51),
    (64, 64, 15),
    (128, 40, 51),
    (21, 22, 3),
    (9, 7, 101),
    (24, 128, 51),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize(("H", "W", "K"), CASES)
def test_equals_the_reference_in_value_and_every_gradient(H, W, K, channels, sampling):
    check(random_gaussians((2,), 30, channels), (H, W), K, sampling)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_equals_the_reference_with_hundreds_of_channels(sampling):
    check(random_gaussians((), 12, 130), (20, 24), 9, sampling)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_large_frames_which_are_read_without_a_border(channels):
    coords, *others = random_gaussians((), 60, channels, torch.float32)  # a third of the centres within 7 px of an edge
    near = coords.detach().clamp(-1.02, 1.02)
    near[:20, 0] = near[:20, 0].sign()
    near[20:40, 1] = near[20:40, 1].sign() * 0.99
    check((near, *others), (512, 530), 15, times=8)  # a position near 512 has lost eight times as much as one near 64


@pytest.mark.parametrize("channels", [1, 2])
def test_frames_whose_rows_are_2048_bytes_apart(channels):
    check(random_gaussians((), 30, channels), (12, 512), 15, times=8)  # as above


def test_large_frames_are_bitwise_the_same_on_any_number_of_threads():
    inputs = random_gaussians((), 400, 2, torch.float32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(native_render((530, 512), 51), inputs))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_density_is_the_reference_s_too():
    check(random_gaussians((2,), 30, 2), (24, 20), 9, normalize="density")


def test_more_than_256_gaussians_in_one_place():
    coords, *others = random_gaussians((), 700, 1)
    check((coords.detach() * 0.1, *others), (20, 20), 9)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_leading_dimensions_are_frames(frames):
    inputs = random_gaussians((frames, 3), 8, 2, torch.float32)
    image = native_render((12, 14), 7)(*inputs)
    assert image.shape == (frames, 3, 2, 12, 14)
    alone = native_render((12, 14), 7)(*(x[frames - 1, 1] for x in inputs))
    assert torch.equal(image[frames - 1, 1], alone)


@settings(max_examples=40, deadline=None)
@given(
    H=st.integers(1, 40),
    W=st.integers(1, 70),
    K=st.integers(1, 40).map(lambda n: 2 * n + 1),
    count=st.integers(1, 40),
    channels=st.integers(1, 5),
    low=st.sampled_from([0.1, 0.3]),
    high=st.sampled_from([0.5, 1.0, 3.0]),
    turns=st.sampled_from([1.5, 7.0, 300.0]),
    sampling=st.sampled_from(SAMPLINGS),
    seed=st.integers(0, 10**6),
)
def test_any_shape(H, W, K, count, channels, low, high, turns, sampling, seed):
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape, low, high):
        return torch.rand(*shape, generator=random) * (high - low) + low

    inputs = (
        uniform(2, count, 2, low=-1.5, high=1.5),
        uniform(2, count, 2, low=low, high=high),
        uniform(2, count, low=-turns, high=turns),
        uniform(2, count, channels, low=-1.0, high=1.0),
    )
    found, expected = in_both(inputs, (H, W), K, sampling)
    # Against what a sum of absolute values could reach: single Gaussians may all be out of the frame, or cancel.
    scales = (1.0, 1.0 * max(H, W), K, K, 1.0)
    for a, b, unit in zip(found, expected, scales, strict=True):
        assert torch.isfinite(a).all()
        assert (a - b).abs().max() <= 3e-5 * (b.abs().max() + unit)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("scale", [1e-3, 1e-8, 0.0, -1.0])
def test_tiny_scales_stay_finite(scale, sampling):
    coords, scales, rotation, amplitudes = random_gaussians((), 20, 2, torch.float32)
    scales = torch.full_like(scales, scale).requires_grad_()
    found = value_and_gradients(native_render((16, 18), 9, sampling), (coords, scales, rotation, amplitudes))
    assert all(torch.isfinite(x).all() for x in found)
    # On a lattice one sample is left, spread over four pixels.
    image = reference.render(coords, scales, rotation, amplitudes, (16, 18), 9, "peak", sampling)
    torch.testing.assert_close(found[0], image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("far", [3.0, 1e4, 1e9, 3e38])
def test_a_gaussian_far_outside_draws_nothing(far):
    coords, *others = (x.detach() for x in random_gaussians((), 4, 1, torch.float32))
    coords = torch.tensor([[far, 0.0], [-far, 0.0], [0.0, far], [0.0, -far]]).requires_grad_()
    others = [x.requires_grad_() for x in others]
    image, *gradients = value_and_gradients(native_render((20, 20), 9), (coords, *others))
    assert not image.any()
    assert not any(x.any() for x in gradients)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["coords", "scale", "rotation"])
def test_a_gaussian_that_is_nowhere_does_not_vanish_silently(which, bad):
    inputs = {
        n: x.detach().clone() for n, x in zip(NAMES[1:], random_gaussians((2,), 5, 1, torch.float32), strict=True)
    }
    inputs[which][0, 3] = bad
    leaves = [x.requires_grad_() for x in inputs.values()]
    image = native_render((12, 12), 7)(*leaves)
    assert image[0].isnan().all()
    assert torch.isfinite(image[1]).all()
    gradients = torch.autograd.grad(image, leaves, torch.ones_like(image))
    assert all(g[0, 3].isnan().all() and torch.isfinite(g[1]).all() for g in gradients)


@pytest.mark.parametrize(("frames", "count"), [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_draw(frames, count):
    inputs = random_gaussians((frames,), count, 2, torch.float32)
    image = native_render((10, 12), 7)(*inputs)
    assert image.shape == (frames, 2, 10, 12)
    assert not image.any()
    assert [g.shape for g in torch.autograd.grad(image.sum(), inputs)] == [x.shape for x in inputs]


def test_no_channels():
    inputs = random_gaussians((2,), 5, 0, torch.float32)
    image = native_render((10, 12), 7)(*inputs)
    assert image.shape == (2, 0, 10, 12)
    gradients = torch.autograd.grad(image.sum(), inputs)
    assert all(not gradient.any() for gradient in gradients)


def strided(x):
    """The same numbers, with gaps between them."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def test_inputs_and_gradients_need_not_be_contiguous():
    inputs = [x.detach() for x in random_gaussians((2,), 9, 3, torch.float32)]
    apart = [strided(x).requires_grad_() for x in inputs]
    assert not any(x.is_contiguous() for x in apart)
    together = [x.clone().requires_grad_() for x in inputs]
    render = native_render((12, 14), 7)
    # A sum sends back an expanded tensor, without memory of its own.
    for a, b in zip(
        torch.autograd.grad(render(*apart).sum(), apart),
        torch.autograd.grad(render(*together), together, torch.ones(2, 3, 12, 14)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_flipping_the_coords_flips_the_image(gaussians):
    coords, scale, rotation, amplitudes = gaussians(dtype=torch.float32)
    render = native_render((20, 27), 9)
    flipped = render(coords * torch.tensor([-1, 1]), scale, -rotation, amplitudes)
    torch.testing.assert_close(flipped, render(coords, scale, rotation, amplitudes).flip(-1), atol=1e-5, rtol=0)


def test_swapping_the_coords_transposes_the_image(gaussians):
    coords, scale, rotation, amplitudes = gaussians(dtype=torch.float32)
    swapped = native_render((27, 20), 9)(coords.flip(-1), scale, math.pi / 2 - rotation, amplitudes)
    found = native_render((20, 27), 9)(coords, scale, rotation, amplitudes).mT
    torch.testing.assert_close(swapped, found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_equals_the_literal_algorithm(gaussians, sampling):
    coords, scale, rotation, amplitudes = (x.detach() for x in gaussians(gaussians=9, channels=2, dtype=torch.float32))
    found = native_render((26, 54), 11, sampling)(coords, scale, rotation, amplitudes)
    moved = literal.to_literal(coords.double(), scale.double(), rotation.double(), (26, 54), 11)
    expected = literal.base(*moved, amplitudes.double(), (26, 54), 11)
    difference = (found - expected).abs().max()
    # The analytic mode is another function, and must not be this one by mistake.
    assert difference < 1e-5 if sampling == "lattice" else difference > 1e-2


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("frames", "channels"), [(1, 1), (1, 3), (2, 1), (7, 2)])
def test_bitwise_the_same_on_any_number_of_threads(frames, channels):
    # Large enough to be divided: a frame of 400 Gaussians with K = 51.
    inputs = random_gaussians((frames,), 400, channels, torch.float32)
    results = []
    for threads in (1, 2, 3, 5, 1):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(native_render((96, 80), 51), inputs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_deterministic_algorithms_allow_it_and_poison_no_result():
    inputs = random_gaussians((3,), 40, 2, torch.float32)
    render = native_render((17, 19), 9)
    expected = value_and_gradients(render, inputs)
    torch.use_deterministic_algorithms(True)  # fills what is newly allocated with NaN
    try:
        assert torch.empty(3).isnan().all()
        found = value_and_gradients(render, inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_autocast_renders_in_float32():
    inputs = random_gaussians((), 9, 2, torch.float32)
    expected = native_render((12, 14), 7)(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(native_render((12, 14), 7)(*inputs), expected)


def test_float64_is_left_to_the_reference(gaussians):
    inputs = gaussians()
    image = splat.render(*inputs, size=(12, 14), kernel_size=7)
    assert torch.equal(image, reference.render(*inputs, (12, 14), 7))
    with pytest.raises(splat.RendererUnavailable, match="'cpu' renders in float32"):
        splat.render(*inputs, size=(12, 14), kernel_size=7, backend="cpu")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_opcheck_finds_nothing(sampling):
    inputs = random_gaussians((2,), 5, 3, torch.float32)
    options = (10, 12, 7.0, sampling == "analytic")
    torch.library.opcheck(torch.ops.predgsplat.render.default, (*inputs, *options))
    torch.library.opcheck(torch.ops.predgsplat.render.default, (*inputs, *options, torch.float32))
    detached = [x.detach() for x in inputs]
    arguments = (torch.randn(2, 3, 10, 12), *detached, *options[2:])
    torch.library.opcheck(torch.ops.predgsplat.render_backward.default, arguments)


def test_compiles_without_a_break():
    inputs = random_gaussians((2,), 9, 2, torch.float32)

    def loss(*x):
        return splat.render(*x, size=(12, 14), kernel_size=7).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), loss(*inputs))
    for a, b in zip(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_keeps_its_inputs_and_nothing_else():
    inputs = random_gaussians((4,), 50, 3, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        native_render((64, 64), 15)(*inputs)
    assert sorted(kept) == sorted(x.data_ptr() for x in inputs)


def test_a_renderer_requested_by_name_has_second_derivatives_from_the_reference():
    inputs = random_gaussians((), 5, 1, torch.float32)
    second = []
    for render in (native_render((12, 14), 7), reference_render((12, 14), 7)):
        gradients = torch.autograd.grad(render(*inputs).square().sum(), inputs, create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * b.abs().max().item(), rtol=0)


def in_a_new_process(code, **environment):
    """Run code beside these tests, and return what it wrote."""
    program = textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_memory_that_was_used_before_leaves_no_trace():
    # glibc fills what it hands out with 0xfe, as floats -1.7e38.
    in_a_new_process(
        """
        from tests.splat.test_native import CASES, check, random_gaussians
        for H, W, K in CASES:
            for channels in (1, 3):
                check(random_gaussians((2,), 20, channels), (H, W), K)
        """,
        MALLOC_PERTURB_="1",
    )


OTHER_LEVELS = {"avx2": "x86-64-v3", "default": "x86-64"}


@pytest.mark.skipif(not build.cpu_level().startswith("x86-64"), reason="levels of x86 processors")
@pytest.mark.parametrize("capability", ["avx2", pytest.param("default", marks=pytest.mark.slow)])
def test_lesser_processors_render_the_same(capability):
    output = in_a_new_process(
        """
        from pdr_cli.splat import build, native
        from tests.splat.test_native import CASES, SAMPLINGS, check, random_gaussians
        assert not native.unavailable("cpu")
        for H, W, K in CASES:
            for channels in (1, 3):
                for sampling in SAMPLINGS:
                    check(random_gaussians((2,), 20, channels), (H, W), K, sampling)
        print(build.cpu_level())
        """,
        ATEN_CPU_CAPABILITY=capability,
    )
    assert output.split()[-1] == OTHER_LEVELS[capability]


# (right, wrong) of gaussian.h. Each is compiled in and chosen at run time, so that one build has them all.
MUTATIONS = {
    "a zeroed gradient": ("-hh * difference * product", "0.0f * hh * difference * product"),
    "an off-diagonal counted twice": ("2.0f * along_u * r.sin * m.suw", "4.0f * along_u * r.sin * m.suw"),
    "a floor": ("g.fraction_x = x - g.x;", "g.fraction_x = g.x - g.x;"),
}


def mutable(header: str) -> str:
    """`gaussian.h` with every mutation in it: the variable `mutation` of the library chooses one; 0 is none."""
    for number, (right, wrong) in enumerate(MUTATIONS.values(), start=1):
        assert header.count(right) == 1
        if right.endswith(";"):
            choice = f"if (mutation == {number}) {{ {wrong} }} else {{ {right} }}"
        else:
            choice = f"(mutation == {number} ? {wrong} : {right})"
        header = header.replace(right, choice)
    variable = 'extern "C" { [[gnu::weak, gnu::visibility("default")]] int mutation = 0; }'
    return header.replace("#pragma once", f"#pragma once\n{variable}", 1)


@pytest.fixture(scope="module")
def noticed(tmp_path_factory, compiler) -> dict[str, str]:
    """What the comparison with the reference says of each mutation, and of the code without one (None, under "")."""
    folder = tmp_path_factory.mktemp("mutations") / "predgsplat"
    shutil.copytree(build.sources_folder(), folder)
    (folder / "gaussian.h").write_text(mutable((folder / "gaussian.h").read_text()))
    output = in_a_new_process(
        f"""
        import ctypes, json
        from pathlib import Path
        from pdr_cli.splat import build
        build.sources_folder = lambda: Path({str(folder)!r})
        build.CXX_FLAGS = build.CXX_FLAGS.replace("-O3", "-O0")
        from tests.splat.test_native import MUTATIONS, check, random_gaussians
        mutation = ctypes.c_int.in_dll(ctypes.CDLL(str(build.library("cpu"))), "mutation")
        found = {{}}
        for number, name in enumerate(["", *MUTATIONS]):
            mutation.value = number
            try:
                found[name] = check(random_gaussians((2,), 30, 1), (33, 31), 15)
            except AssertionError as error:
                found[name] = str(error)
        print(json.dumps(found))
        """,
        PREDGSPLAT_CACHE=str(folder.parent),
        CXX=compiler,
        KEPT="ops.cpp.o",  # which has nothing of the mathematics
    )
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_the_mathematics_is_noticed(name, noticed):
    assert noticed[""] is None, "without a mutation, the code is right"
    assert "of its maximum" in (noticed[name] or "")
