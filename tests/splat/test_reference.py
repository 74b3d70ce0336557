"""The specification: against a double loop, its convention, its symmetries, and what it promises about memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pdr_cli.splat import reference


def double_loop(coords, scale, rotation, amplitudes, size, kernel_size):
    """Algorithm 1 one lattice point at a time: [N, ...] -> [C, H, W]."""
    H, W = size
    image = torch.zeros(amplitudes.shape[-1], H, W, dtype=torch.float64)
    radius, h = (kernel_size - 1) // 2, 10 / (kernel_size - 1)
    for (mx, my), (s1, s2), theta, a in zip(
        coords.tolist(), scale.tolist(), rotation.tolist(), amplitudes, strict=True
    ):
        cx, cy = (mx + 1) * (W - 1) / 2, (my + 1) * (H - 1) / 2
        for v in range(-radius, radius + 1):
            for u in range(-radius, radius + 1):
                along = (u * math.cos(theta) + v * math.sin(theta)) * h / s1
                across = (v * math.cos(theta) - u * math.sin(theta)) * h / s2
                g = math.exp(-(along**2 + across**2) / 2)
                for i in (math.floor(cy) + v, math.floor(cy) + v + 1):
                    for j in (math.floor(cx) + u, math.floor(cx) + u + 1):
                        if 0 <= i < H and 0 <= j < W:
                            image[:, i, j] += a * g * (1 - abs(i - cy - v)) * (1 - abs(j - cx - u))
    return image


@settings(max_examples=40, deadline=None)
@given(
    H=st.integers(1, 24),
    W=st.integers(1, 24),
    kernel_size=st.sampled_from([3, 5, 7, 13]),  # from several tiles per frame to a kernel beyond the frame
    count=st.integers(0, 3),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_equals_a_double_loop(gaussians, H, W, kernel_size, count, channels, seed):
    inputs = [x.detach() for x in gaussians(gaussians=count, channels=channels, seed=seed)]
    found = reference.render(*inputs, (H, W), kernel_size)
    torch.testing.assert_close(found, double_loop(*inputs, (H, W), kernel_size), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("size", "kernel_size"), [((4, 13), 5), ((6, 5), 9)])
def test_gradients_equal_finite_differences(gaussians, size, kernel_size):
    inputs = gaussians(gaussians=2)
    assert torch.autograd.gradcheck(lambda *x: reference.render(*x, size, kernel_size), inputs)


@pytest.mark.parametrize(("size", "kernel_size"), [((4, 13), 5), ((6, 5), 9.5)])
def test_analytic_gradients_equal_finite_differences(gaussians, size, kernel_size):
    inputs = gaussians(gaussians=2)
    assert torch.autograd.gradcheck(lambda *x: reference.render(*x, size, kernel_size, "peak", "analytic"), inputs)


def test_analytic_is_the_gaussian_at_each_pixel_s_centre():
    # K = 21: a kernel unit is 2 px. The centre is (1 + 0.1) * 10 / 2 = 5.5 and (1 - 0.2) * 10 / 2 = 4.
    tensors = [torch.tensor([x], dtype=torch.float64) for x in ((0.1, -0.2), (0.5, 1.5), 0.0, (3.0,))]
    image = reference.render(*tensors, (11, 11), 21, "peak", "analytic")[0]
    assert image[4, 6].item() == pytest.approx(3 * math.exp(-(0.25**2) / 0.5**2 / 2))
    assert image[7, 5].item() == pytest.approx(3 * math.exp(-(0.25**2) / 0.5**2 / 2 - 1.5**2 / 1.5**2 / 2))


@pytest.mark.parametrize("times", [2, 3])
def test_analytic_draws_the_same_at_any_resolution(gaussians, times):
    inputs = gaussians(channels=2)
    coarse = reference.render(*inputs, (9, 12), 7, "peak", "analytic")
    fine = reference.render(*inputs, (8 * times + 1, 11 * times + 1), 6 * times + 1, "peak", "analytic")
    torch.testing.assert_close(fine[..., ::times, ::times], coarse)


def test_analytic_frames_and_gaussians_come_in_blocks(gaussians, monkeypatch):
    inputs = gaussians(batch=(3,), gaussians=7)
    whole = reference.render(*inputs, (9, 12), 7, "peak", "analytic")
    monkeypatch.setattr(reference, "CPU_BLOCK_BYTES", 2 * 9 * 12 * 8)
    torch.testing.assert_close(reference.render(*inputs, (9, 12), 7, "peak", "analytic"), whole)


def one(coords=(0.0, 0.0), scale=(0.3, 0.3), rotation=0.0, size=(33, 33), kernel_size=15):
    """One Gaussian of amplitude 1: [H, W]."""
    tensors = [torch.tensor([x], dtype=torch.float64) for x in (coords, scale, rotation, (1.0,))]
    return reference.render(*tensors, size, kernel_size)[0]


def centroid(image):
    """(x, y) in pixels."""
    y, x = (torch.arange(n, dtype=torch.float64) for n in image.shape)
    return (image.sum(0) @ x / image.sum()).item(), (image.sum(1) @ y / image.sum()).item()


def test_positive_coords_move_right_and_down():
    # (1 + µ)(size - 1)/2: 1.5 * 32 / 2 = 24 columns, 0.75 * 20 / 2 = 7.5 rows.
    assert centroid(one((0.5, -0.25), size=(21, 33))) == pytest.approx((24, 7.5))


@pytest.mark.parametrize("size", [(32, 33), (33, 32)])
def test_zero_is_the_middle_of_even_and_odd_frames(size):
    assert centroid(one(size=size)) == pytest.approx(((size[1] - 1) / 2, (size[0] - 1) / 2))


def test_first_scale_lies_along_x():
    image = one(scale=(0.9, 0.5), kernel_size=21)
    offsets = torch.arange(33, dtype=torch.float64) - 16
    # σ in pixels is s (K-1)/10 = 2 s, and the window of ±5 units holds all but 1e-6 of it.
    assert (image.sum(0) @ offsets.square() / image.sum()).item() == pytest.approx(1.8**2, rel=1e-4)
    assert (image.sum(1) @ offsets.square() / image.sum()).item() == pytest.approx(1.0**2, rel=1e-4)


def test_rotation_turns_x_towards_rows_below():
    image = one(scale=(0.9, 0.3), rotation=math.pi / 4)
    assert image[19, 19] > 100 * image[13, 19]


def test_peak_is_the_amplitude_on_a_whole_pixel():
    assert one().max().item() == 1


def test_flipping_the_coords_flips_the_image(gaussians):
    coords, scale, rotation, amplitudes = gaussians()
    flipped = reference.render(coords * torch.tensor([-1, 1]), scale, -rotation, amplitudes, (20, 27), 9)
    torch.testing.assert_close(flipped, reference.render(coords, scale, rotation, amplitudes, (20, 27), 9).flip(-1))


def test_swapping_the_coords_transposes_the_image(gaussians):
    coords, scale, rotation, amplitudes = gaussians()
    swapped = reference.render(coords.flip(-1), scale, math.pi / 2 - rotation, amplitudes, (27, 20), 9)
    torch.testing.assert_close(swapped, reference.render(coords, scale, rotation, amplitudes, (20, 27), 9).mT)


def test_density_integrates_to_one():
    scale = torch.tensor([[0.6, 0.4]], dtype=torch.float64)
    image = reference.render(0 * scale, scale, scale[:, 0], 1 + 0 * scale[:, :1], (61, 61), 51, "density")
    assert image.sum().item() * (10 / 50) ** 2 == pytest.approx(1, abs=1e-6)  # one pixel is 10/(K-1) units wide


def test_density_is_a_factor_of_the_amplitudes(gaussians, evaluate, same):
    inputs = gaussians(channels=2)

    def by_hand(coords, scale, rotation, amplitudes):
        factor = 1 / (2 * math.pi * scale[..., 0] * scale[..., 1])
        return reference.render(coords, scale, rotation, amplitudes * factor[..., None], (20, 22), 9)

    same(evaluate(lambda *x: reference.render(*x, (20, 22), 9, "density"), inputs), evaluate(by_hand, inputs), 1e-12)


@pytest.mark.parametrize("smallest", [1e-3, 1e-8, 0.0])
@pytest.mark.parametrize("normalize", ["peak", "density"])
def test_tiny_scales_stay_finite(gaussians, evaluate, smallest, normalize):
    coords, scale, rotation, amplitudes = gaussians(dtype=torch.float32)
    scale = torch.full_like(scale, smallest, requires_grad=True)
    found = evaluate(lambda *x: reference.render(*x, (20, 22), 15, normalize), (coords, scale, rotation, amplitudes))
    assert all(x.isfinite().all() for x in found)
    assert found[0].abs().max() > 0


@pytest.mark.parametrize("kernel_size", [0, 1, 8])
def test_a_kernel_needs_an_odd_number_of_samples(gaussians, kernel_size):
    with pytest.raises(ValueError, match=f"kernel_size is {kernel_size}"):
        reference.render(*gaussians(), (20, 22), kernel_size)


def test_float32_is_within_rounding_of_float64(gaussians, evaluate, same):
    inputs = gaussians(gaussians=40, dtype=torch.float32)
    exact = evaluate(lambda *x: reference.render(*x, (40, 64), 15), tuple(x.double() for x in inputs))
    # A pixel position near 64 is rounded to 4e-6 pixels.
    same(evaluate(lambda *x: reference.render(*x, (40, 64), 15), inputs), exact, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_rendered_in_float32(gaussians, dtype):
    inputs = [x.to(dtype) for x in gaussians()]
    found = reference.render(*inputs, (20, 22), 9)
    assert found.dtype == torch.float32
    assert torch.equal(found, reference.render(*(x.float() for x in inputs), (20, 22), 9))


def test_autocast_changes_nothing(gaussians, evaluate):
    inputs = gaussians(dtype=torch.float32)

    def render(*x):
        return reference.render(*x, (20, 22), 9, "density")

    def under_autocast(*x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return render(*x)

    found, expected = evaluate(under_autocast, inputs), evaluate(render, inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_strided_and_expanded_tensors(gaussians):
    inputs = gaussians(batch=(3,), gaussians=5, channels=2)
    strided = [torch.stack([x, x], -1).transpose(0, 1)[..., 0].transpose(0, 1) for x in inputs]
    assert not any(x.is_contiguous() for x in strided)
    image = reference.render(*strided, (20, 22), 9)
    assert image.is_contiguous()
    assert torch.equal(image, reference.render(*inputs, (20, 22), 9))
    image.sum().backward()  # the gradient of a sum is an expanded tensor
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in inputs)


def test_leading_dimensions_are_frames(gaussians):
    inputs = gaussians(batch=(2, 3), channels=2)
    image = reference.render(*inputs, (20, 22), 9)
    assert image.shape == (2, 3, 2, 20, 22)
    torch.testing.assert_close(image[1, 2], reference.render(*(x[1, 2] for x in inputs), (20, 22), 9))


@pytest.mark.parametrize("batch", [(), (4,), (0,), (2, 0)])
@pytest.mark.parametrize("count", [0, 3])
def test_no_frames_and_no_gaussians(gaussians, batch, count):
    inputs = gaussians(batch=batch, gaussians=count, channels=2)
    image = reference.render(*inputs, (20, 22), 9)
    assert image.shape == (*batch, 2, 20, 22)
    assert count or not image.any()
    assert [g.shape for g in torch.autograd.grad(image.sum(), inputs)] == [x.shape for x in inputs]


def test_repeats_are_bitwise_equal_in_deterministic_mode(gaussians, evaluate):
    inputs = gaussians(batch=(3,), gaussians=50, dtype=torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (evaluate(lambda *x: reference.render(*x, (40, 38), 9), inputs) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("saved", [0, 1 << 40])
def test_blocks_change_no_value_and_no_gradient(gaussians, evaluate, same, monkeypatch, saved):
    inputs = gaussians(batch=(3,), gaussians=7, channels=2)
    expected = evaluate(lambda *x: reference.render(*x, (40, 22), 9), inputs)
    monkeypatch.setattr(reference, "CPU_BLOCK_BYTES", 1)  # one Gaussian of one frame
    monkeypatch.setattr(reference, "SAVED_BYTES", saved)
    same(evaluate(lambda *x: reference.render(*x, (40, 22), 9), inputs), expected, 1e-12)


class LargestBuffer(TorchDispatchMode):
    """Records the bytes of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


def test_no_buffer_exceeds_the_budget(gaussians, evaluate, monkeypatch):
    inputs = gaussians(batch=(6,), gaussians=60)
    budget = 4 * 4 * 32 * 32 * 8  # what one frame takes: 4 x 4 windows of two by two tiles of 16 pixels
    monkeypatch.setattr(reference, "CPU_BLOCK_BYTES", budget)
    monkeypatch.setattr(reference, "SAVED_BYTES", 0)
    with LargestBuffer() as buffers:
        evaluate(lambda *x: reference.render(*x, (40, 44), 15), inputs)
    assert buffers.largest <= budget < 60 * 32 * 32 * 8


def test_large_batches_save_their_inputs_only(gaussians, monkeypatch):
    inputs = gaussians(batch=(6,), gaussians=60)

    def saved_bytes():
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.nbytes) or x, lambda x: x):
            reference.render(*inputs, (40, 44), 15)
        return sum(saved)

    assert saved_bytes() > 6 * 60 * 16 * 16 * 8  # at least the lattices
    monkeypatch.setattr(reference, "SAVED_BYTES", 0)
    assert saved_bytes() < 3 * sum(x.nbytes for x in inputs)


class Renderer(torch.nn.Module):
    def forward(self, coords, scale, rotation, amplitudes):
        return reference.render(coords, scale, rotation, amplitudes, (40, 22), 9)


def test_torch_compile_traces_one_graph(gaussians, evaluate, same):
    inputs = gaussians(batch=(2,), dtype=torch.float32)
    compiled = torch.compile(Renderer(), backend="aot_eager", fullgraph=True)
    same(evaluate(compiled, inputs), evaluate(Renderer(), inputs), 1e-5)


def test_exports_with_any_number_of_frames(gaussians):
    small, large = (tuple(x.detach() for x in gaussians(batch=(n, 3), dtype=torch.float32)) for n in (2, 5))
    frames = torch.export.Dim("frames")
    program = torch.export.export(Renderer(), small, dynamic_shapes=[{0: frames}] * 4)
    torch.testing.assert_close(program.module()(*large), Renderer()(*large))


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_exports_to_onnx_with_any_number_of_frames(gaussians, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small, large = (tuple(x.detach() for x in gaussians(batch=(n,), dtype=torch.float32)) for n in (2, 5))
    frames = torch.export.Dim("frames")
    program = torch.onnx.export(Renderer().eval(), small, dynamic_shapes=[{0: frames}] * 4, dynamo=True, verbose=False)
    program.save(tmp_path / "renderer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "renderer.onnx")
    (found,) = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), large, strict=True)})
    torch.testing.assert_close(torch.from_numpy(found), Renderer()(*large), atol=1e-5, rtol=0)
