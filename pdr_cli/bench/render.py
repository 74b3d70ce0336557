"""How fast each renderer is on this machine, timed only after it has been shown to render the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from pdr_cli import splat
from pdr_cli.bench.machine import at_least, describe, threads_set
from pdr_cli.bench.timing import interleave, statistics_of
from pdr_cli.errors import PdrError, UsageError, did_you_mean
from pdr_cli.splat import literal, node, reference
from pdr_cli.system import devices
from pdr_cli.system.logs import Progress, log

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
VARIANTS = ("base", "base_grid", "reference", "predgsplat")
PAPER_SETTINGS = {32: (15, 300), 64: (15, 300), 128: (51, 400), 256: (51, 400)}  # Table 9: K and N
PAPER_FPS = {  # Table 9, one A800
    "base": {32: 1086, 64: 508, 128: 209, 256: 90},
    "base_grid": {32: 1381, 64: 803, 128: 399, 256: 307},
    "predgsplat": {32: 7648, 64: 6665, 128: 3242, 256: 1149},
}
# Codecs of images and videos by Gaussians use 10,000 to 70,000 a frame (GaussianImage, GSVC). With K = 51, the random
# Gaussians are 2.5 px wide on average, which covers each pixel of these frames with 1 to 20 of them.
CODEC_FRAMES, CODEC_GAUSSIANS, CODEC_KERNEL = ((512, 512), (512, 768), (1080, 1920)), (10_000, 50_000), 51
# float32 pixel positions near 256 carry 1.5e-5 px, and affine_grid adds its own rounding. Positions in frames of more pixels
# carry more: at 1920 x 1080 the float32 reference is off by 3.3e-5.
VALUE_TOLERANCE, GRADIENT_TOLERANCE, PIXELS = 2e-5, 1e-4, 512
ORACLE_TOLERANCE = 1e-10  # float64 against float64
BLOCK = 1000  # Gaussians that the reference draws at once
MOST_PADDED = 2**30  # numbers of a tensor with a frame per Gaussian, as the literal variants hold several: 4 GiB


@dataclass(frozen=True)
class Options:
    """The options of `pdr bench-render`; empty lists and None: the defaults.

    kind: "render" (this module), or "compose" (`bench.compose`).
    res: frames, as `size_of` reads them.
    """

    kind: str = "render"
    res: Sequence[str | int] = ()
    gaussians: int | None = None
    kernel_size: int | None = None
    channels: Sequence[int] = ()
    batch: Sequence[int] = ()
    backward: bool = False
    variants: Sequence[str] = ()
    paper: bool = False
    codecs: bool = False
    device: str = "auto"
    threads: int | None = None
    repeats: int = 100

    def settings(self) -> list[Setting]:
        """Every combination of frame, Gaussians, channels and batch.

        Raises:
            UsageError: --paper or --codecs together with what it fixes.
        """
        preset = "--paper" if self.paper else "--codecs" if self.codecs else ""
        if preset and (self.res or self.gaussians is not None or self.kernel_size is not None):
            fixed = "--res, --gaussians and --kernel-size"
            raise UsageError(f"{preset} fixes {fixed}", way_out=f"leave them out, or leave out {preset}")
        if self.paper and self.codecs:
            raise UsageError("--paper and --codecs are two sets of frames", way_out="choose one")
        sizes = (
            CODEC_FRAMES if self.codecs else [size_of(r) for r in (PAPER_SETTINGS if self.paper else self.res or [256])]
        )
        kernel_size = CODEC_KERNEL if self.codecs else self.kernel_size
        return [
            complete(size, kernel_size, n, c, b)
            for size, n, c, b in itertools.product(
                sizes,
                CODEC_GAUSSIANS if self.codecs else [self.gaussians],
                self.channels or [3 if self.codecs else 1],
                self.batch or [1],
            )
        ]


def size_of(res: str | int) -> tuple[int, int]:
    """(H, W) of a frame: "256" is square, "768x512" is its width and height.

    Raises:
        UsageError: another text, or a side below 2.
    """
    width, _, height = str(res).partition("x")
    try:
        size = int(height or width), int(width)
    except ValueError:
        raise UsageError(f"--res {res}", "a side in pixels like 256, or width and height like 768x512") from None
    at_least("res", min(size), 2)
    return size


@dataclass(frozen=True)
class Frames:
    """What is rendered."""

    height: int
    width: int
    gaussians: int
    channels: int
    batch: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def frame_numbers(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class Setting(Frames):
    """Frames, and the kernel size K of Algorithm 1."""

    kernel_size: int


SettingType = TypeVar("SettingType", bound=Frames)


@dataclass(frozen=True)
class Variant(Generic[SettingType]):
    """A renderer; `translate` converts public inputs to its own convention and is not timed."""

    name: str
    render: Callable[[Inputs, SettingType], Tensor]
    translate: Callable[[Inputs, SettingType], Inputs] = lambda inputs, setting: inputs


def run(options: Options) -> dict[str, Any]:
    """Check every variant against float64 and time those that pass.

    Returns:
        The report: device, torch, threads and commit, and one row per setting, pass and variant.

    Raises:
        UsageError: options that cannot be measured.
    """
    device = devices.pick(options.device)
    settings = options.settings()
    node.prepare()
    variants = find_variants(options.variants or (["predgsplat"] if options.codecs else []), device)
    check_options(settings, variants, options.threads, options.repeats)
    with threads_set(options.threads):
        report = describe(device) | {"autograd": "Python" if node.direct is None else "C++"}
        report["rows"] = in_turn(settings, lambda s: measure(s, variants, device, options.backward, options.repeats))
    if options.paper:
        for row in report["rows"]:
            row["paper_a800_fps"] = paper_fps(row)
    return report


def paper_fps(row: Mapping[str, Any]) -> int | None:
    """Frames per second that the paper prints for a forward pass of this variant and resolution."""
    return PAPER_FPS.get(row["variant"], {}).get(row["height"]) if row["pass"] == "forward" else None


def complete(
    size: tuple[int, int], kernel_size: int | None, gaussians: int | None, channels: int, batch: int
) -> Setting:
    """Fill in K and N of the paper's setting with the nearest number of pixels, by ratio."""
    nearest = min(PAPER_SETTINGS, key=lambda known: abs(math.log(known**2 / math.prod(size))))
    paper_kernel, paper_gaussians = PAPER_SETTINGS[nearest]
    kernel_size = paper_kernel if kernel_size is None else kernel_size
    gaussians = paper_gaussians if gaussians is None else gaussians
    return Setting(*size, gaussians, channels, batch, kernel_size)


def check_counts(settings: Sequence[Frames], threads: int | None, repeats: int) -> None:
    """Refuse numbers that are too small."""
    at_least("repeats", repeats)
    at_least("threads", 1 if threads is None else threads)
    for setting in settings:
        for name, value in asdict(setting).items():
            at_least(name, value)


def check_options(settings: list[Setting], variants: list[Variant[Setting]], threads: int | None, repeats: int) -> None:
    """Refuse what cannot be measured, before anything is timed."""
    check_counts(settings, threads, repeats)
    for setting in settings:
        if setting.kernel_size < 3 or setting.kernel_size % 2 == 0:
            raise UsageError(f"--kernel-size {setting.kernel_size}", "an odd number, 3 or more")
        padded = [v.name for v in variants if v.name.startswith("base")]
        if padded and setting.kernel_size > min(setting.size):
            raise UsageError(
                f"{' and '.join(padded)} cannot pad a {setting.kernel_size} px kernel to {min(setting.size)} px",
                way_out="choose a smaller --kernel-size, or --variants without them",
            )
        if padded and setting.frame_numbers * setting.batch * setting.gaussians > MOST_PADDED:
            raise UsageError(
                f"{' and '.join(padded)} would hold {setting.batch * setting.gaussians} frames at once",
                way_out="choose a smaller frame or --gaussians, or --variants without them",
            )


def in_turn(
    settings: Sequence[SettingType], measure: Callable[[SettingType], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of each setting; says in lines how far it is: a live bar would take time while others are measured."""
    progress, rows = Progress("measured"), []
    for number, setting in enumerate(settings, 1):
        rows += measure(setting)
        frames = f"{setting.width}x{setting.height}, N {setting.gaussians}, C {setting.channels}, batch {setting.batch}"
        if number < len(settings):
            progress.update(number / len(settings), frames)
    return rows


def find_variants(names: Sequence[str], device: torch.device) -> list[Variant[Setting]]:
    """The variants by name; without names, all that work on this device."""

    def translate(inputs: Inputs, s: Setting) -> Inputs:
        coords, scale, rotation, amplitudes = inputs
        return *literal.to_literal(coords, scale, rotation, s.size, s.kernel_size), amplitudes

    native = partial(splat.render, backend=device.type)
    known = {
        "base": Variant("base", lambda x, s: literal.base(*x, s.size, s.kernel_size), translate),
        "base_grid": Variant("base_grid", lambda x, s: literal.base_grid(*x, s.size, s.kernel_size), translate),
        "reference": Variant("reference", lambda x, s: reference.render(*x, s.size, s.kernel_size)),
        "predgsplat": Variant("predgsplat", lambda x, s: native(*x, size=s.size, kernel_size=s.kernel_size)),
    }
    tiny = Setting(4, 4, kernel_size=3, gaussians=1, channels=1, batch=1)
    return chosen(names, known, why_not_native(known["predgsplat"], tiny, random_inputs(tiny, device)))


def chosen(
    names: Sequence[str], known: dict[str, Variant[SettingType]], unavailable: str
) -> list[Variant[SettingType]]:
    """The variants by name; without names, all. unavailable: why `predgsplat` cannot run, or an empty string.

    Raises:
        UsageError: an unknown or unavailable variant.
    """
    if not names:
        return [v for v in known.values() if v.name != "predgsplat" or not unavailable]
    for name in names:
        if name not in known:
            found = f"--variants {name!r} is not known.{did_you_mean(name, known)}"
            raise UsageError(found, f"some of {', '.join(known)}")
        if name == "predgsplat" and unavailable:
            raise UsageError(f"--variants predgsplat: {unavailable}")
    return [known[name] for name in dict.fromkeys(names)]


def why_not_native(variant: Variant[SettingType], setting: SettingType, inputs: Inputs) -> str:
    """Why the compiled renderer cannot run here, or an empty string."""
    try:
        variant.render(inputs, setting)
    except splat.RendererUnavailable as error:
        return str(error)
    return ""


def random_inputs(setting: Setting, device: torch.device, seed: int = 0) -> Inputs:
    """Gaussians as a network with tanh and sigmoid heads emits them, from random numbers.

    Centres stay 0.05 px away from the pixel grid: on it the derivative is one-sided, and rounding would choose the side.
    """
    random = torch.Generator().manual_seed(seed)
    B, N = setting.batch, setting.gaussians
    normal = partial(torch.randn, generator=random, dtype=torch.float64)
    half = (torch.tensor([setting.width, setting.height], dtype=torch.float64) - 1) / 2
    pixels = (normal(B, N, 2).tanh() + 1) * half
    pixels = pixels.floor() + pixels.frac().clamp(0.05, 0.95)
    inputs = (
        pixels / half - 1,
        normal(B, N, 2).sigmoid(),
        math.pi / 2 * normal(B, N).tanh(),
        normal(B, N, setting.channels),
    )
    coords, scale, rotation, amplitudes = (x.float().to(device) for x in inputs)
    return coords, scale, rotation, amplitudes


def measure(
    setting: Setting, variants: list[Variant[Setting]], device: torch.device, backward: bool, repeats: int
) -> list[dict[str, Any]]:
    """One row per variant and pass."""
    inputs = random_inputs(setting, device)
    truth = truth_of(setting, inputs, backward)
    check_truth(setting, inputs, backward)
    return rows_of(setting, variants, inputs, truth, repeats, "base")


def rows_of(
    setting: SettingType,
    variants: list[Variant[SettingType]],
    inputs: Inputs,
    truth: tuple[Tensor, ...],
    repeats: int,
    baseline: str,
) -> list[dict[str, Any]]:
    """One row per variant and pass; the backward pass is measured if the truth has gradients."""
    backward, device = len(truth) > 1, inputs[0].device
    errors = {v.name: compare(evaluate(v, setting, inputs, torch.float32, backward), truth) for v in variants}
    sound = [v for v in variants if passes(errors[v.name], setting.size)]
    rows = []
    for name in ("forward", "forward+backward") if backward else ("forward",):
        log.debug("timing %s of %s", name, setting)
        calls = {v.name: timed_call(v, setting, inputs, name != "forward") for v in sound}
        seconds = interleave(calls, repeats, device)
        for v in variants:
            error = errors[v.name][0] if name == "forward" else max(errors[v.name])
            row: dict[str, Any] = {**asdict(setting), "pass": name, "variant": v.name, "ok": v in sound}
            row["max_rel_err"] = error if math.isfinite(error) else None  # JSON has no infinity
            rows.append(row | statistics_of(seconds, v.name, setting.batch, baseline))
    return rows


def truth_of(setting: Setting, inputs: Inputs, backward: bool) -> tuple[Tensor, ...]:
    """What `evaluate` gives of the reference in float64, in blocks of Gaussians that follow each other down the frame."""
    log.debug("checking %s", setting)
    order = inputs[0][..., 1].argsort(dim=1)
    a, b, c, d = (in_order(x, order) for x in inputs)
    image, *gradients = evaluate_in_parts(Variant("truth", in_their_rows), setting, (a, b, c, d), backward, BLOCK)
    back = order.argsort(dim=1)
    return image, *(in_order(x, back) for x in gradients)


def in_order(x: Tensor, order: Tensor) -> Tensor:
    """x [B, N, ...] with the Gaussians of each frame in an order [B, N]."""
    return x.take_along_dim(order.reshape(*order.shape, *[1] * (x.dim() - 2)), dim=1)


def in_their_rows(inputs: Inputs, setting: Setting) -> Tensor:
    """The reference, which computes only the rows of the frame that the Gaussians may reach: [B, C, H, W]."""
    coords, scale, rotation, amplitudes = inputs
    height, reach = setting.height, setting.kernel_size // 2 + 2
    rows = (coords[..., 1] + 1) * ((height - 1) / 2)
    top = max(0, min(height - 2, math.floor(rows.min().item()) - reach))
    bottom = min(height, max(top + 2, math.ceil(rows.max().item()) + reach))
    within = torch.stack([coords[..., 0], (rows - top) * (2 / (bottom - top - 1)) - 1], dim=-1)
    size = (bottom - top, setting.width)
    image = reference.render(within, scale, rotation, amplitudes, size, setting.kernel_size)
    return pad(image, (0, 0, top, height - bottom))


def evaluate_in_parts(
    variant: Variant[Setting], setting: Setting, inputs: Inputs, backward: bool, gaussians: int
) -> tuple[Tensor, ...]:
    """Equivalent to `evaluate` in float64, with the memory of a few Gaussians: an image is a sum over all of them."""
    parts = [
        evaluate(variant, setting, block, torch.float64, backward)
        for block in zip(*(x.split(gaussians, dim=1) for x in inputs), strict=True)
    ]
    image, gradients = sum(part[0] for part in parts), zip(*(part[1:] for part in parts), strict=True)
    return torch.as_tensor(image), *(torch.cat(blocks, dim=1) for blocks in gradients)


def evaluate(
    variant: Variant[SettingType], setting: SettingType, inputs: Inputs, dtype: torch.dtype, backward: bool
) -> tuple[Tensor, ...]:
    """The image and, with `backward`, the gradients of a fixed weighting by the four public inputs."""
    coords, scale, rotation, amplitudes = (x.to(dtype).requires_grad_(backward) for x in inputs)
    leaves = (coords, scale, rotation, amplitudes)
    image = variant.render(variant.translate(leaves, setting), setting)
    if not backward:
        return (image,)
    return image.detach(), *torch.autograd.grad(image, leaves, weighting(image))


def weighting(image: Tensor) -> Tensor:
    """Weights that repeat over frames, so that one frame alone gets the same ones."""
    random = torch.Generator().manual_seed(1)
    weights = torch.randn(image.shape[1:], generator=random, dtype=torch.float64)
    return weights.to(image).expand_as(image)


def compare(found: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> list[float]:
    """Largest error of each tensor relative to the largest entry; infinite for a NaN."""
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, truth, strict=True)]
    return [math.inf if math.isnan(e) else e for e in errors]


def passes(errors: list[float], size: tuple[int, int]) -> bool:
    """Whether errors, of the image and then of gradients, are those of float32 in frames of a size (H, W)."""
    larger = max(1.0, max(size) / PIXELS)
    return errors[0] <= larger * VALUE_TOLERANCE and all(e <= larger * GRADIENT_TOLERANCE for e in errors[1:])


def check_truth(setting: Setting, inputs: Inputs, backward: bool) -> None:
    """Hold the float64 reference against the literal Algorithm 1, where K fits into the frame.

    On the first frame, and of many Gaussians on the first ones: the literal algorithm holds a frame for each.
    """
    if setting.kernel_size > min(setting.size):
        return
    most = max(1, MOST_PADDED // 32 // setting.frame_numbers)
    coords, scale, rotation, amplitudes = (x[:1, :most] for x in inputs)
    first = coords, scale, rotation, amplitudes
    found = truth_of(setting, first, backward)
    base = find_variants(["base"], inputs[0].device)[0]
    errors = compare(evaluate_in_parts(base, setting, first, backward, 50), found)
    if max(errors) > ORACLE_TOLERANCE:
        raise PdrError(f"the float64 reference differs from Algorithm 1 by {max(errors):.1e} at {setting}")


def timed_call(
    variant: Variant[SettingType], setting: SettingType, inputs: Inputs, backward: bool
) -> Callable[[], None]:
    """One rendering, with its gradients if asked for, in the variant's own convention."""
    with torch.no_grad():
        a, b, c, d = (x.clone().requires_grad_(backward) for x in variant.translate(inputs, setting))
        weights = weighting(variant.render((a, b, c, d), setting)).contiguous()

    def forward() -> None:
        variant.render((a, b, c, d), setting)  # nothing requires a gradient

    def forward_and_backward() -> None:
        torch.autograd.grad(variant.render((a, b, c, d), setting), (a, b, c, d), weights)

    return forward_and_backward if backward else forward
