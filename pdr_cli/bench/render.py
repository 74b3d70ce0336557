"""How fast each renderer is on this machine, timed only after it has been shown to render the same."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pdr_cli import splat
from pdr_cli.bench.machine import at_least, describe, synchronize, threads_set
from pdr_cli.errors import PdrError, UsageError, did_you_mean
from pdr_cli.splat import literal, reference
from pdr_cli.system import devices
from pdr_cli.system.logs import log

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
VARIANTS = ("base", "base_grid", "reference", "predgsplat")
PAPER_SETTINGS = {32: (15, 300), 64: (15, 300), 128: (51, 400), 256: (51, 400)}  # Table 9: K and N
PAPER_FPS = {  # Table 9, one A800
    "base": {32: 1086, 64: 508, 128: 209, 256: 90},
    "base_grid": {32: 1381, 64: 803, 128: 399, 256: 307},
    "predgsplat": {32: 7648, 64: 6665, 128: 3242, 256: 1149},
}
# float32 pixel positions near 256 carry 1.5e-5 px, and affine_grid adds its own rounding.
VALUE_TOLERANCE, GRADIENT_TOLERANCE = 2e-5, 1e-4
ORACLE_TOLERANCE = 1e-10  # float64 against float64
MAX_SECONDS = 10.0  # per variant and pass: a slow baseline should not hold up the rest
MIN_REPEATS = 5
SAMPLE_SECONDS = 2e-3  # shorter calls are timed in groups, so that the clock and the synchronisation do not count


@dataclass(frozen=True)
class Options:
    """The options of `pdr bench-render`; empty lists and None: the defaults.

    kind: "render" (this module), or "compose" (`bench.compose`).
    """

    kind: str = "render"
    res: Sequence[int] = ()
    gaussians: int | None = None
    kernel_size: int | None = None
    channels: Sequence[int] = ()
    batch: Sequence[int] = ()
    backward: bool = False
    variants: Sequence[str] = ()
    paper: bool = False
    device: str = "auto"
    threads: int | None = None
    repeats: int = 100

    def settings(self) -> list[Setting]:
        """Every combination of resolution, channels and batch.

        Raises:
            UsageError: --paper together with what it fixes.
        """
        if self.paper and (self.res or self.gaussians is not None or self.kernel_size is not None):
            fixed = "--res, --gaussians and --kernel-size"
            raise UsageError(f"--paper fixes {fixed}", way_out="leave them out, or leave out --paper")
        resolutions = list(PAPER_SETTINGS) if self.paper else self.res or [256]
        return [
            complete(r, self.kernel_size, self.gaussians, c, b)
            for r, c, b in itertools.product(resolutions, self.channels or [1], self.batch or [1])
        ]


@dataclass(frozen=True)
class Frames:
    """What is rendered: square frames of `res` pixels."""

    res: int
    gaussians: int
    channels: int
    batch: int

    @property
    def size(self) -> tuple[int, int]:
        return self.res, self.res


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
    variants = find_variants(options.variants, device)
    settings = options.settings()
    check_options(settings, variants, options.threads, options.repeats)
    with threads_set(options.threads):
        report = describe(device)
        report["rows"] = [
            row for s in settings for row in measure(s, variants, device, options.backward, options.repeats)
        ]
    if options.paper:
        for row in report["rows"]:
            row["paper_a800_fps"] = paper_fps(row)
    return report


def paper_fps(row: Mapping[str, Any]) -> int | None:
    """Frames per second that the paper prints for a forward pass of this variant and resolution."""
    return PAPER_FPS.get(row["variant"], {}).get(row["res"]) if row["pass"] == "forward" else None


def complete(res: int, kernel_size: int | None, gaussians: int | None, channels: int, batch: int) -> Setting:
    """Fill in K and N of the paper's setting with the nearest resolution, by ratio."""
    nearest = min(PAPER_SETTINGS, key=lambda known: abs(math.log(known / max(res, 1))))
    paper_kernel, paper_gaussians = PAPER_SETTINGS[nearest]
    kernel_size = paper_kernel if kernel_size is None else kernel_size
    gaussians = paper_gaussians if gaussians is None else gaussians
    return Setting(res, gaussians, channels, batch, kernel_size)


def check_counts(settings: Sequence[Frames], threads: int | None, repeats: int) -> None:
    """Refuse numbers that are too small."""
    at_least("repeats", repeats)
    at_least("threads", 1 if threads is None else threads)
    for setting in settings:
        for name, value in asdict(setting).items():
            at_least(name, value, 2 if name == "res" else 1)


def check_options(settings: list[Setting], variants: list[Variant[Setting]], threads: int | None, repeats: int) -> None:
    """Refuse what cannot be measured, before anything is timed."""
    check_counts(settings, threads, repeats)
    for setting in settings:
        if setting.kernel_size < 3 or setting.kernel_size % 2 == 0:
            raise UsageError(f"--kernel-size {setting.kernel_size}", "an odd number, 3 or more")
        padded = [v.name for v in variants if v.name.startswith("base")]
        if padded and setting.kernel_size > setting.res:
            raise UsageError(
                f"{' and '.join(padded)} cannot pad a {setting.kernel_size} px kernel to {setting.res} px",
                way_out="choose a smaller --kernel-size, or --variants without them",
            )


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
    tiny = Setting(res=4, kernel_size=3, gaussians=1, channels=1, batch=1)
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
    half = (setting.res - 1) / 2
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
    check_truth(truth, setting, inputs, backward)
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
    sound = [v for v in variants if passes(errors[v.name])]
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
    """What `evaluate` gives of the reference in float64."""
    log.debug("checking %s", setting)
    reference_variant = find_variants(["reference"], inputs[0].device)[0]
    return evaluate(reference_variant, setting, inputs, torch.float64, backward)


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


def passes(errors: list[float]) -> bool:
    return errors[0] <= VALUE_TOLERANCE and all(e <= GRADIENT_TOLERANCE for e in errors[1:])


def check_truth(truth: tuple[Tensor, ...], setting: Setting, inputs: Inputs, backward: bool) -> None:
    """Hold the float64 reference against the literal Algorithm 1 on the first frame, where K fits into it.

    The image is a sum over Gaussians, so a few at a time give the same image without a frame for each of hundreds.
    """
    if setting.kernel_size > setting.res:
        return
    base = find_variants(["base"], inputs[0].device)[0]
    coords, scale, rotation, amplitudes = (x[:1].split(50, dim=1) for x in inputs)
    parts = [
        evaluate(base, setting, block, torch.float64, backward)
        for block in zip(coords, scale, rotation, amplitudes, strict=True)
    ]
    image = torch.stack([part[0] for part in parts]).sum(0)
    gradients = (torch.cat(blocks, dim=1) for blocks in zip(*(part[1:] for part in parts), strict=True))
    errors = compare((image, *gradients), tuple(x[:1] for x in truth))
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
        with torch.no_grad():
            variant.render((a, b, c, d), setting)

    def forward_and_backward() -> None:
        torch.autograd.grad(variant.render((a, b, c, d), setting), (a, b, c, d), weights)

    return forward_and_backward if backward else forward


def interleave(calls: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds per call; the variants take turns, so that other load on the machine affects all of them alike."""

    def seconds(call: Callable[[], None], times: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(times):
            call()
        synchronize(device)
        return (time.perf_counter() - start) / times

    for call in calls.values():
        seconds(call, 1)  # warm-up: allocations, library handles
    group = {
        name: math.ceil(min(100, SAMPLE_SECONDS / min(seconds(call, 1) for _ in range(3))))
        for name, call in calls.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(repeats, MIN_REPEATS)):
        for name, call in calls.items():
            if len(samples[name]) < MIN_REPEATS or sum(samples[name]) * group[name] < MAX_SECONDS:
                if group[name] > 1:
                    # The previous variant has emptied the caches. A long call fills them by itself; of short calls the
                    # first takes four times as long as the next, and in use frames follow each other.
                    seconds(call, math.ceil(group[name] / 4))
                samples[name].append(seconds(call, group[name]))
    return samples


def statistics_of(samples: dict[str, list[float]], name: str, batch: int, baseline: str) -> dict[str, Any]:
    """Milliseconds per frame, frames per second and the ratio to the baseline; nothing for a variant that failed."""
    seconds, ratio = samples.get(name), f"speedup_vs_{baseline}"
    if not seconds:
        return dict.fromkeys(("fps", "ms_p50", "ms_p10", "ms_p90", "repeats", ratio))
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    median, base = statistics.median(seconds), samples.get(baseline)
    return {
        "fps": batch / median,
        "ms_p50": 1e3 * median / batch,
        "ms_p10": 1e3 * tenths[0] / batch,
        "ms_p90": 1e3 * tenths[-1] / batch,
        "repeats": len(seconds),
        ratio: statistics.median(base) / median if base else None,
    }
