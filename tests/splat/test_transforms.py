"""The renderer under torch's transforms and modes: value and derivatives of the reference, or an error with a way out."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd import functional
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from pdr_cli import splat
from pdr_cli.splat import derivatives, native
from tests.splat.conftest import random_gaussians

pytestmark = [
    pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu")),
    pytest.mark.usefixtures("each_path"),
]

Function = Callable[[Tensor], Tensor]
SIZE, KERNEL_SIZE, GAUSSIANS = (5, 6), 5, 3


def renderer(backend: str, channels: int, sampling: str) -> Function:
    """All parameters of three Gaussians in one vector -> image [C, 5, 6]."""

    def draw(x: Tensor) -> Tensor:
        coords, scale, rotation, amplitudes = x.split([2, 2, 1, channels], dim=-1)
        inputs = (coords, scale, rotation[..., 0], amplitudes)
        return splat.render(*inputs, size=SIZE, kernel_size=KERNEL_SIZE, sampling=sampling, backend=backend)

    return lambda x: draw(x.reshape(*x.shape[:-1], GAUSSIANS, -1))


def parameters(channels: int) -> Tensor:
    coords, scale, rotation, amplitudes = random_gaussians((), GAUSSIANS, channels, torch.float32)
    return torch.cat([coords * 0.7, scale + 0.3, rotation[:, None], amplitudes], dim=-1).detach().flatten()


def loss(f: Function) -> Function:
    return lambda x: f(x).sin().sum()


def direction(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, x.numel()).view_as(x)


def three(x: Tensor) -> Tensor:
    return torch.stack([x, x + 0.1, x - 0.1])


def dual(f: Function, x: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, direction(x)))).tangent


def dual_of_a_leaf(f: Function, x: Tensor) -> tuple[Tensor, ...]:
    """A tangent and, of the tangent, a gradient."""
    x = x.clone().requires_grad_()
    tangent = dual(f, x)
    assert tangent is not None
    return tangent.detach(), *torch.autograd.grad(tangent.sin().sum(), x)


def forward_over_reverse(f: Function, x: Tensor) -> Tensor | None:
    x = x.clone().requires_grad_()
    image = f(x)
    with forward_ad.dual_level():
        (gradient,) = torch.autograd.grad(image, x, forward_ad.make_dual(torch.ones_like(image), direction(image)))
        return forward_ad.unpack_dual(gradient).tangent


def derivative(order: int) -> Callable[[Function, Tensor], Tensor]:
    def run(f: Function, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        y = loss(f)(x)
        for _ in range(order):
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y.detach()

    return run


def batched_gradients(f: Function, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    image = f(x)
    return torch.autograd.grad(image, x, three(direction(image)), is_grads_batched=True)


def jvp_of_a_pullback(f: Function, x: Tensor) -> Tensor:
    image, pull = vjp(f, x)
    return jvp(lambda g: pull(g)[0], (image,), (direction(image),))


def in_parts(f: Function, x: Tensor) -> Tensor:
    """vmap over some of the inputs only."""

    def last_moved(some: Tensor) -> Tensor:
        return f(torch.cat([x[:-1], some]))

    return vmap(grad(loss(last_moved)))(direction(x)[:, None])


TRANSFORMS = {
    "jvp": lambda f, x: jvp(f, (x,), (direction(x),)),
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones(f(x).shape)),
    "grad": lambda f, x: grad(loss(f))(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacrev in chunks": lambda f, x: jacrev(f, chunk_size=50)(x),
    "hessian": lambda f, x: hessian(loss(f))(x),
    "jacrev of jacrev": lambda f, x: jacrev(jacrev(loss(f)))(x),
    "jacfwd of jacfwd": lambda f, x: jacfwd(jacfwd(loss(f)))(x),
    "jacrev of jacfwd": lambda f, x: jacrev(jacfwd(loss(f)))(x),
    "third of grad": lambda f, x: grad(lambda x: grad(lambda x: grad(loss(f))(x).sum())(x).sum())(x),
    "functionalize": lambda f, x: functionalize(f)(x),
    "functional_call": lambda f, x: functional_call(Draw(f, x), {"x": x + 0.1}, ()),
    "dual": dual,
    "dual of a leaf": dual_of_a_leaf,
    "forward over reverse": forward_over_reverse,
    "second derivative": derivative(2),
    "third derivative": derivative(3),
    "gradients of a batch": batched_gradients,
    "jvp of a pullback": jvp_of_a_pullback,
    "vmap": lambda f, x: vmap(f)(three(x)),
    "vmap, the last dimension": lambda f, x: vmap(f, in_dims=-1, out_dims=-1)(three(x).mT),
    "vmap in chunks": lambda f, x: vmap(f, chunk_size=2, randomness="different")(three(x)),
    "vmap of vmap": lambda f, x: vmap(vmap(f, in_dims=1), randomness="same")(torch.stack([three(x).mT] * 2)),
    "vmap of grad": lambda f, x: vmap(grad(loss(f)))(three(x)),
    "vmap of grad, of one input": in_parts,
    "vmap of jvp": lambda f, x: vmap(lambda x: jvp(f, (x,), (direction(x),))[1])(three(x)),
    "vmap of hessian": lambda f, x: vmap(hessian(loss(f)))(three(x)),
    "grad of vmap": lambda f, x: grad(lambda x: vmap(f)(three(x)).sin().sum())(x),
    "jacobian": lambda f, x: functional.jacobian(f, x, vectorize=True),
    "jacobian, forward": lambda f, x: functional.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    "functional.hessian": lambda f, x: functional.hessian(loss(f), x),
    "functional.jvp": lambda f, x: functional.jvp(f, x, direction(x)),
    "functional.hvp": lambda f, x: functional.hvp(loss(f), x, direction(x)),
    "functional.vhp": lambda f, x: functional.vhp(loss(f), x, direction(x)),
    "make_fx": lambda f, x: make_fx(f)(x)(x + 0.1),
}


class Draw(torch.nn.Module):
    def __init__(self, f: Function, x: Tensor) -> None:
        super().__init__()
        self.f, self.x = f, torch.nn.Parameter(x)

    def forward(self) -> Tensor:
        return self.f(self.x)


def check(found: object, expected: object, tolerance: float = 2e-5) -> None:
    found, expected = (torch.utils._pytree.tree_leaves(x) for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert b.any()
        torch.testing.assert_close(a, b, atol=tolerance * b.abs().max().item(), rtol=0)


@pytest.mark.parametrize(("sampling", "channels"), [("lattice", 1), ("analytic", 2)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_gives_what_the_reference_gives(name, sampling, channels):
    x, run = parameters(channels), TRANSFORMS[name]
    check(run(renderer("auto", channels, sampling), x), run(renderer("reference", channels, sampling), x))


def test_the_tangent_is_the_difference_of_two_images():
    x = parameters(1).double()
    f = renderer("auto", 1, "analytic")
    numeric = (f(x + 1e-6 * direction(x)) - f(x - 1e-6 * direction(x))) / 2e-6
    found = jvp(f, (x.float(),), (direction(x.float()),))[1]
    torch.testing.assert_close(found.double(), numeric, atol=1e-4, rtol=0)


REVERSE = ["grad", "vjp", "jacrev", "vmap", "vmap of grad", "grad of vmap", "gradients of a batch"]


@pytest.mark.parametrize("name", REVERSE)
def test_values_and_first_derivatives_come_from_the_kernels(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the reference was called")

    monkeypatch.setattr(splat.reference, "render", refuse)
    TRANSFORMS[name](renderer("auto", 1, "lattice"), parameters(1))


@pytest.mark.parametrize("name", ["jvp", "jacfwd", "hessian", "dual", "vmap of jvp", "jacobian, forward"])
def test_a_renderer_requested_by_name_refuses_forward_mode(name):
    f, x = renderer("cpu", 1, "lattice"), parameters(1)
    with pytest.raises(splat.RendererUnavailable, match=r"no forward-mode derivatives .* use backend='reference' or"):
        TRANSFORMS[name](f, x)
    with pytest.raises(splat.RendererUnavailable, match="transform Functionalize; use backend='reference' or 'auto'"):
        functionalize(f)(x)


def test_the_operator_itself_is_right_under_transforms():
    def operator(x: Tensor) -> Tensor:
        coords, scale, rotation, amplitudes = x.reshape(GAUSSIANS, -1).split([2, 2, 1, 1], dim=-1)
        options = (*SIZE, float(KERNEL_SIZE), False)
        return torch.ops.predgsplat.render.default(coords, scale, rotation[..., 0], amplitudes, *options)

    x, f = parameters(1), renderer("reference", 1, "lattice")
    for name in ("jvp", "dual", "grad", "jacrev", "hessian", "vmap", "second derivative", "forward over reverse"):
        check(TRANSFORMS[name](operator, x), TRANSFORMS[name](f, x))


def test_the_reference_recomputes_only_where_torch_allows_it(monkeypatch):
    x, f = parameters(1), renderer("reference", 1, "lattice")
    expected = [TRANSFORMS[name](f, x) for name in ("grad", "dual of a leaf", "second derivative")]
    monkeypatch.setattr(splat.reference, "SAVED_BYTES", 0)
    found = [TRANSFORMS[name](f, x) for name in ("grad", "dual of a leaf", "second derivative")]
    check(found, expected)


def gradients_of(f: Function, x: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    image = f(x)
    return image.detach(), *torch.autograd.grad(image.float().sin().sum(), x)


def under(context: Callable[[], object]) -> Callable[[Function, Tensor], tuple[Tensor, ...]]:
    def run(f: Function, x: Tensor) -> tuple[Tensor, ...]:
        with context():  # type: ignore[attr-defined]
            return gradients_of(f, x)

    return run


def without_gradients(context: Callable[[], object]) -> Callable[[Function, Tensor], Tensor]:
    def run(f: Function, x: Tensor) -> Tensor:
        with context():  # type: ignore[attr-defined]
            image = f(x.requires_grad_())
        assert not image.requires_grad
        return image.clone()

    return run


def fully_checkpointed(f: Function, x: Tensor) -> Tensor | None:
    x = x.detach().requires_grad_()
    checkpoint(f, x, use_reentrant=True).sin().sum().backward()
    return x.grad


class Marked(Tensor):
    """A subclass that torch passes through its operations."""


MODES = {
    "plain": gradients_of,
    "no_grad": without_gradients(torch.no_grad),
    "inference_mode": without_gradients(torch.inference_mode),
    "anomaly": under(torch.autograd.detect_anomaly),
    "saved-tensor hooks": under(lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x.numpy(), torch.tensor)),
    "save_on_cpu": under(torch.autograd.graph.save_on_cpu),
    "checkpoint": lambda f, x: gradients_of(lambda x: checkpoint(f, x, use_reentrant=False), x),
    "checkpoint, reentrant": fully_checkpointed,
    "create_graph": lambda f, x: (loss(f)(y := x.detach().requires_grad_()).backward(create_graph=True), y.grad)[1],
    "a subclass": lambda f, x: gradients_of(f, x.as_subclass(Marked)),
    "deepcopy": lambda f, x: copy.deepcopy(Draw(f, x))().detach(),
    "expanded": lambda f, x: gradients_of(lambda x: f(x[:1].expand(x.shape[0])), x),
    "strided": lambda f, x: gradients_of(f, torch.stack([x, x], dim=1)[:, 0]),
    "jit.trace": lambda f, x: torch.jit.trace(f, x)(x + 0.1),
    "jit.trace of a leaf": lambda f, x: gradients_of(torch.jit.trace(f, x.clone().requires_grad_()), x),
    "meta": lambda f, x: torch.ones([len(gradients_of(f, x.to("meta"))), *f(x.to("meta")).shape]),
}


@pytest.mark.filterwarnings(
    "ignore:Anomaly Detection", "ignore:Using backward", "ignore:.*TorchScript", "ignore:.*jit.tra"
)
@pytest.mark.parametrize("name", MODES)
def test_a_mode_gives_what_the_reference_gives(name):
    x, run = parameters(2), MODES[name]
    check(run(renderer("auto", 2, "lattice"), x), run(renderer("reference", 2, "lattice"), x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["plain", "jvp", "grad", "second derivative", "vmap of grad"])
def test_autocast_changes_nothing(name, dtype):
    x, f, run = parameters(2), renderer("auto", 2, "lattice"), (MODES | TRANSFORMS)[name]
    expected = run(f, x)
    with torch.autocast("cpu", dtype):
        check(run(f, x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_density_of_half_precision_is_computed_in_float32(dtype):
    inputs = [x.detach().to(dtype) for x in random_gaussians((), 9, 2)]
    options = {"size": (12, 14), "kernel_size": 7, "normalize": "density"}
    check(splat.render(*inputs, **options), splat.render(*inputs, **options, backend="reference"))


@pytest.mark.parametrize("leading", [(0,), (2, 0)])
def test_an_empty_batch_has_an_empty_image(leading):
    inputs = [x.detach() for x in random_gaussians(leading, 4, 2, torch.float32)]
    image = vmap(lambda *x: splat.render(*x, size=SIZE, kernel_size=KERNEL_SIZE))(*inputs)
    assert image.shape == (*leading, 2, *SIZE)


def test_no_gaussians_have_no_derivative():
    inputs = tuple(x.detach() for x in random_gaussians((), 0, 2, torch.float32))

    def draw(*x: Tensor) -> Tensor:
        return splat.render(*x, size=SIZE, kernel_size=KERNEL_SIZE)

    assert not jvp(draw, inputs, inputs)[1].any()
    assert grad(lambda *x: draw(*x).sum())(*inputs).shape == (0, 2)


def test_fake_tensors_have_the_shape_of_the_image():
    with torch._subclasses.fake_tensor.FakeTensorMode() as mode:
        x = mode.from_tensor(parameters(2)).requires_grad_()
        image = renderer("auto", 2, "lattice")(x)
        assert image.shape == (2, *SIZE)
        assert torch.autograd.grad(image.sum(), x)[0].shape == x.shape


def test_the_function_can_be_pickled():
    assert pickle.loads(pickle.dumps(splat.render)) is splat.render


def test_scripting_is_refused_by_torch():
    with pytest.raises(Exception, match="Compiled functions can't take variable number of arguments"):
        torch.jit.script(splat.render)


def test_tensors_of_inference_mode_are_refused_where_they_would_be_kept():
    with torch.inference_mode():
        coords, scale, rotation, _ = (x.detach() for x in random_gaussians((), 4, 1, torch.float32))
    amplitudes = torch.ones(4, 1, requires_grad=True)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        splat.render(coords, scale, rotation, amplitudes, size=SIZE, kernel_size=KERNEL_SIZE)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_one_input_alone_may_need_gradients(number):
    def gradient(backend: str) -> Tensor:
        inputs = [x.detach() for x in random_gaussians((), 4, 2, torch.float32)]
        inputs[number].requires_grad_()
        image = splat.render(*inputs, size=SIZE, kernel_size=KERNEL_SIZE, backend=backend)
        return torch.autograd.grad(image.sin().sum(), inputs[number])[0]

    check(gradient("auto"), gradient("reference"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amplitudes": torch.ones(6, 1) * 1j}, "amplitudes is torch.complex64; expected a tensor of real numbers"),
        ({"coords": torch.zeros(6, 2).numpy()}, "coords is ndarray; expected a tensor of real numbers"),
        ({"amplitudes": torch.ones(6, 1, device="meta")}, "the Gaussians are on cpu and meta; expected one device"),
        ({"size": (20.0, 22)}, r"size is \(20.0, 22\); expected \(H, W\), two integers, both at least 1"),
    ],
)
def test_says_what_is_not_a_tensor_or_a_size(change, message):
    inputs = dict(zip(("coords", "scale", "rotation", "amplitudes"), random_gaussians(), strict=True))
    inputs = {name: x.detach().float() for name, x in inputs.items()}
    with pytest.raises(ValueError, match=message):
        splat.render(**{**inputs, "size": (20, 22), "kernel_size": 9, **change})


def compiled(f: Function, backend: str = "eager") -> Function:
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend=backend)


@pytest.mark.slow
def test_a_transform_in_compiled_code_gives_what_the_reference_gives():
    x = parameters(1)
    for name in ("jvp", "grad", "vmap"):
        run = TRANSFORMS[name]
        found = compiled(lambda x, run=run: run(renderer("auto", 1, "lattice"), x))(x)
        check(found, run(renderer("reference", 1, "lattice"), x))


def test_compiled_code_has_tangents_also_if_it_was_compiled_without():
    x = parameters(1)
    f = compiled(renderer("auto", 1, "lattice"))
    check(f(x), renderer("reference", 1, "lattice")(x))
    check(dual(f, x), dual(renderer("reference", 1, "lattice"), x))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["jvp", "grad", "hessian", "vmap of grad"])
def test_a_transform_in_compiled_code_may_be_lowered(name, backend):
    x, run = parameters(1), TRANSFORMS[name]
    found = compiled(lambda x: run(renderer("auto", 1, "lattice"), x), backend)(x)
    check(found, run(renderer("reference", 1, "lattice"), x))


@pytest.mark.slow
def test_tangents_that_the_compiler_drops_are_an_error():
    f = compiled(lambda x: renderer("auto", 1, "lattice")(x.sin()), "inductor")
    f(parameters(1))
    with pytest.raises(RuntimeError, match=r"torch.compile has dropped the tangents .* call torch.func.jvp within"):
        dual(f, parameters(1))


@pytest.mark.slow
def test_traced_derivatives_are_those_of_the_reference():
    x = parameters(1)
    expected = jvp(renderer("reference", 1, "lattice"), (x,), (direction(x),))[1]
    _, push = linearize(renderer("auto", 1, "lattice"), x)
    check(push(direction(x)), expected)
    traced = make_fx(lambda x: jvp(renderer("auto", 1, "lattice"), (x,), (direction(x),))[1])(x + 0.1)
    check(traced(x), expected)
    traced = make_fx(grad(loss(renderer("auto", 1, "lattice"))), tracing_mode="fake")(x + 0.1)
    check(traced(x), TRANSFORMS["grad"](renderer("reference", 1, "lattice"), x))


def test_outside_of_transforms_nothing_is_unsupported():
    assert derivatives.unsupported() == ""
    with forward_ad.dual_level():
        assert "forward-mode" in derivatives.unsupported()
    assert derivatives.unsupported() == ""
