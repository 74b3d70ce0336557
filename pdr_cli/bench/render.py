"""`pdr bench-render`: how fast each way of rendering is on this machine, after proof that it renders the same."""

from __future__ import annotations

import itertools
import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pdr_cli import splat
from pdr_cli.errors import PdrError, UsageError, did_you_mean
from pdr_cli.splat import literal, reference
from pdr_cli.system import devices
from pdr_cli.system.atomic import atomic_output
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
class Setting:
    """What is rendered: square frames of `res` pixels."""

    res: int
    kernel_size: int
    gaussians: int
    channels: int
    batch: int

    @property
    def size(self) -> tuple[int, int]:
        return self.res, self.res


@dataclass(frozen=True)
class Variant:
    """A renderer in a convention of its own; `translate` brings public inputs to it and is not timed."""

    name: str
    render: Callable[[Inputs, Setting], Tensor]
    translate: Callable[[Inputs, Setting], Inputs] = lambda inputs, setting: inputs


def run(
    *,
    res: list[int] | None = None,
    gaussians: int | None = None,
    kernel_size: int | None = None,
    channels: list[int] | None = None,
    batch: list[int] | None = None,
    backward: bool = False,
    variants: list[str] | None = None,
    paper: bool = False,
    device: str = "auto",
    threads: int | None = None,
    repeats: int = 100,
    output: Path | None = None,
    as_json: bool = False,
) -> int:
    """Check every variant against float64, time those that pass, and print the table.

    Returns:
        0, or 1 if a variant failed its check.
    """
    if paper and any(x is not None for x in (res, gaussians, kernel_size)):
        raise UsageError("--paper fixes --res, --gaussians and --kernel-size; leave them out, or leave out --paper")
    where = devices.pick(device)
    chosen = find_variants(variants, where)
    resolutions = list(PAPER_SETTINGS) if paper else res or [256]
    settings = [
        complete(r, kernel_size, gaussians, c, b)
        for r, c, b in itertools.product(resolutions, channels or [1], batch or [1])
    ]
    check_options(settings, chosen, threads, repeats)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or threads_before)
        report = describe(where)
        report["rows"] = [row for s in settings for row in measure(s, chosen, where, backward, repeats)]
    finally:
        torch.set_num_threads(threads_before)
    if paper:
        for row in report["rows"]:
            forward = row["pass"] == "forward"
            row["paper_a800_fps"] = PAPER_FPS.get(row["variant"], {}).get(row["res"]) if forward else None
    publish(report, table(report, paper), output, as_json)
    return 0 if all(row["ok"] for row in report["rows"]) else 1


def complete(res: int, kernel_size: int | None, gaussians: int | None, channels: int, batch: int) -> Setting:
    """Fill in K and N of the paper's setting with the nearest resolution, by ratio."""
    nearest = min(PAPER_SETTINGS, key=lambda known: abs(math.log(known / max(res, 1))))
    paper_kernel, paper_gaussians = PAPER_SETTINGS[nearest]
    kernel_size = paper_kernel if kernel_size is None else kernel_size
    gaussians = paper_gaussians if gaussians is None else gaussians
    return Setting(res, kernel_size, gaussians, channels, batch)


def check_options(settings: list[Setting], variants: list[Variant], threads: int | None, repeats: int) -> None:
    """Raise UsageError for what cannot be measured, before anything is."""
    at_least("repeats", repeats)
    at_least("threads", 1 if threads is None else threads)
    for setting in settings:
        for name, value in asdict(setting).items():
            at_least(name, value, 2 if name == "res" else 1)
        if setting.kernel_size < 3 or setting.kernel_size % 2 == 0:
            raise UsageError(f"--kernel-size {setting.kernel_size}: expected an odd number, 3 or more")
        padded = [v.name for v in variants if v.name.startswith("base")]
        if padded and setting.kernel_size > setting.res:
            raise UsageError(
                f"{' and '.join(padded)} cannot pad a {setting.kernel_size} px kernel to {setting.res} px; "
                "choose a smaller --kernel-size, or --variants without them"
            )


def at_least(name: str, value: int, lowest: int = 1) -> None:
    if value < lowest:
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected at least {lowest}")


def find_variants(names: list[str] | None, device: torch.device) -> list[Variant]:
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
    unavailable = why_not_native(known["predgsplat"], device)
    if not names:
        return [v for v in known.values() if v.name != "predgsplat" or not unavailable]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"--variants {name!r} is not known; expected some of {', '.join(known)}.{hint}")
        if name == "predgsplat" and unavailable:
            raise UsageError(f"--variants predgsplat: {unavailable}")
    return [known[name] for name in dict.fromkeys(names)]


def why_not_native(variant: Variant, device: torch.device) -> str:
    """Why the compiled renderer cannot run here, or an empty string."""
    tiny = Setting(res=4, kernel_size=3, gaussians=1, channels=1, batch=1)
    try:
        variant.render(random_inputs(tiny, device), tiny)
    except splat.RendererUnavailable as error:
        return str(error)
    return ""


def random_inputs(setting: Setting, device: torch.device, seed: int = 0) -> Inputs:
    """What a network with tanh and sigmoid heads emits at random.

    Centres keep 0.05 px from the pixel grid: on it the derivative is one-sided, and rounding would choose the side.
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
    setting: Setting, variants: list[Variant], device: torch.device, backward: bool, repeats: int
) -> list[dict[str, Any]]:
    """One row per variant and pass."""
    log.debug("checking %s", setting)
    inputs = random_inputs(setting, device)
    truth = evaluate(find_variants(["reference"], device)[0], setting, inputs, torch.float64, backward)
    check_truth(truth, setting, inputs, backward)
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
            rows.append(row | statistics_of(seconds, v.name, setting.batch))
    return rows


def evaluate(
    variant: Variant, setting: Setting, inputs: Inputs, dtype: torch.dtype, backward: bool
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


def timed_call(variant: Variant, setting: Setting, inputs: Inputs, backward: bool) -> Callable[[], None]:
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
    """Seconds per call, the variants taking turns, so that a busy machine is busy for all of them."""

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
                    # The variant before has emptied the caches. A long call fills them by itself; of short ones, the
                    # first takes four times as long as those that follow, and frames come one after the other.
                    seconds(call, math.ceil(group[name] / 4))
                samples[name].append(seconds(call, group[name]))
    return samples


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def statistics_of(samples: dict[str, list[float]], name: str, batch: int) -> dict[str, Any]:
    """Milliseconds per frame, frames per second and the ratio to `base`; nothing for a variant that failed."""
    seconds = samples.get(name)
    if not seconds:
        return dict.fromkeys(("fps", "ms_p50", "ms_p10", "ms_p90", "repeats", "speedup_vs_base"))
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    median, base = statistics.median(seconds), samples.get("base")
    return {
        "fps": batch / median,
        "ms_p50": 1e3 * median / batch,
        "ms_p10": 1e3 * tenths[0] / batch,
        "ms_p90": 1e3 * tenths[-1] / batch,
        "repeats": len(seconds),
        "speedup_vs_base": statistics.median(base) / median if base else None,
    }


def describe(device: torch.device) -> dict[str, Any]:
    """What a timing depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    report = {"device": name, "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    commit = checkout_commit()
    return report | ({"commit": commit} if commit else {})


def cpu_name() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def checkout_commit() -> str | None:
    """The commit of the checkout that this file is tracked in, marked if there are changes."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed package may lie inside another project's checkout
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def publish(report: dict[str, Any], rows: Table, output: Path | None, as_json: bool) -> None:
    """The table `rows`, or JSON in its place, to stdout; JSON to `output`."""
    text = json.dumps(report, indent=2, allow_nan=False)
    if output is not None:
        with atomic_output(output) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
        return
    console = Console()
    # Without a terminal there is no width to respect, and a squeezed table cannot be read by a script.
    console = console if console.is_terminal else Console(width=140)
    console.print(rows)


def table(report: dict[str, Any], paper: bool) -> Table:
    """All rows, with what they depend on in the title."""
    result = Table(title=title_of(report))
    for heading in ("res", "K", "N", "C", "batch", "pass", "variant", "ms/frame", "p10-p90", "FPS", "x base"):
        result.add_column(heading, justify="left" if heading in ("pass", "variant") else "right")
    for heading in ("error", "repeats", *(["A800 FPS (paper)"] if paper else [])):
        result.add_column(heading, justify="right")
    for row in report["rows"]:
        result.add_row(*cells(row), *([number(row["paper_a800_fps"])] if paper else []))
    return result


def title_of(report: dict[str, Any]) -> str:
    """What a table's timings depend on, in a line."""
    title = f"{report['device']}, torch {report['torch']}, {report['threads']} threads"
    return title + (f", commit {report['commit']}" if "commit" in report else "")


def cells(row: dict[str, Any]) -> list[str]:
    """One row as text."""
    names = ("res", "kernel_size", "gaussians", "channels", "batch", "pass", "variant")
    spread = f"{number(row['ms_p10'])}-{number(row['ms_p90'])}" if row["ok"] else ""
    time_per_frame = number(row["ms_p50"]) if row["ok"] else "failed"
    error = "nan" if row["max_rel_err"] is None else f"{row['max_rel_err']:.1e}"
    return [
        *(str(row[name]) for name in names),
        *(time_per_frame, spread, number(row["fps"]), number(row["speedup_vs_base"]), error, str(row["repeats"] or "")),
    ]


def number(x: float | None) -> str:
    """Three significant digits, and no exponent: 0.0213, 1.25, 48.1, 52100."""
    if x is None:
        return ""
    if x >= 100:
        return f"{x:.0f}"
    return f"{x:#.3g}"
