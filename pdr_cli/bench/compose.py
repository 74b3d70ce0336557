"""How fast compositing is on this machine: the compiled renderer beside the dense reference, after a check in float64."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pdr_cli.bench.machine import describe, threads_set
from pdr_cli.bench.render import (
    Frames,
    Inputs,
    Options,
    Variant,
    check_counts,
    chosen,
    evaluate,
    in_turn,
    rows_of,
    size_of,
    why_not_native,
)
from pdr_cli.errors import UsageError
from pdr_cli.splat import compose_reference
from pdr_cli.splat.camera import BLUR
from pdr_cli.splat.compose import compose
from pdr_cli.splat.compose_reference import MAX_ALPHA, MIN_ALPHA, unlimited_alphas
from pdr_cli.system import devices
from pdr_cli.system.logs import log

GAUSSIANS = 4096
BAND = 16  # rows of the truth that are computed at once
# α jumps at 1/255, and its gradient at 0.99. Rounding in float32, which moves α by up to 1e-6 of itself, would choose the
# side of a pixel that lies on the step.
MARGIN = 1e-5


def run(options: Options) -> dict[str, Any]:
    """Check both variants against float64 and time those that pass.

    Returns:
        The report: device, torch, threads and commit, and one row per setting, pass and variant.

    Raises:
        UsageError: options that cannot be measured.
    """
    if options.paper or options.codecs or options.kernel_size is not None:
        found = "--kind compose with --paper, --codecs or --kernel-size"
        raise UsageError(found, way_out="leave them out: they belong to --kind render")
    device = devices.pick(options.device)
    settings = [
        Frames(*size_of(res), GAUSSIANS if options.gaussians is None else options.gaussians, channels, batch)
        for res, channels, batch in itertools.product(
            options.res or [64], options.channels or [3], options.batch or [1]
        )
    ]
    check_counts(settings, options.threads, options.repeats)
    variants = find_variants(options.variants, device)
    with threads_set(options.threads):
        report = describe(device)
        report["rows"] = in_turn(settings, lambda s: measure(s, variants, device, options.backward, options.repeats))
    return report


def find_variants(names: Any, device: torch.device) -> list[Variant[Frames]]:
    """The variants by name; without names, all that work on this device."""
    native = partial(compose, backend=device.type)
    known = {
        "reference": Variant[Frames]("reference", lambda x, s: compose_reference.compose(*x, s.size)),
        "predgsplat": Variant[Frames]("predgsplat", lambda x, s: native(*x, size=s.size)),
    }
    tiny = Frames(4, 4, gaussians=1, channels=1, batch=1)
    return chosen(names, known, why_not_native(known["predgsplat"], tiny, random_inputs(tiny, device)))


def measure(
    setting: Frames, variants: list[Variant[Frames]], device: torch.device, backward: bool, repeats: int
) -> list[dict[str, Any]]:
    """One row per variant and pass."""
    inputs = random_inputs(setting, device)
    log.debug("checking %s", setting)
    truth = evaluate(Variant("truth", lambda x, s: by_bands(x, s.size)), setting, inputs, torch.float64, backward)
    return rows_of(setting, variants, inputs, truth, repeats, "reference")


def by_bands(inputs: Inputs, size: tuple[int, int]) -> Tensor:
    """Equivalent to the reference, but with the memory of one band of rows."""
    (height, width), (centre, *others) = size, inputs

    def band(top: int, centre: Tensor, *others: Tensor) -> Tensor:
        below = centre - torch.tensor([0, top], dtype=centre.dtype, device=centre.device)
        return compose_reference.compose(below, *others, (min(BAND, height - top), width))  # type: ignore[call-arg,arg-type]

    parts = [checkpoint(band, top, centre, *others, use_reentrant=False) for top in range(0, height, BAND)]
    return torch.cat(parts, -2)


def random_inputs(setting: Frames, device: torch.device, seed: int = 0) -> Inputs:
    """Gaussians as those of a scene look in a frame: 0.3 to 3.3 px wide before the blur of a projection, front to back."""
    random = torch.Generator().manual_seed(seed)
    shape = (setting.batch, setting.gaussians)
    uniform = partial(torch.rand, generator=random, dtype=torch.float64)
    frame = torch.tensor([setting.width, setting.height], dtype=torch.float64)
    centre = uniform(*shape, 2) * (frame + 4) - 2.5  # up to 2 px outside the frame
    variance = torch.exp(2.4 * (2 * uniform(*shape, 2) - 1))
    turn = math.pi * uniform(*shape)
    opacity = torch.sigmoid(torch.randn(*shape, generator=random, dtype=torch.float64) + 1)
    features = uniform(*shape, setting.channels)
    inputs = (centre, conics(variance + BLUR, turn), opacity, features)
    centre, conic, opacity, features = (x.float() for x in inputs)
    opacity = away_from_steps(centre, conic, opacity, setting.size)
    return centre.to(device), conic.to(device), opacity.to(device), features.to(device)


def conics(variance: Tensor, turn: Tensor) -> Tensor:
    """The inverse covariance of a Gaussian, turned from +x towards +y: [..., 2], [...] -> [..., 3]."""
    cos, sin, (u, v) = torch.cos(turn), torch.sin(turn), (1 / variance).unbind(-1)
    return torch.stack([cos * cos * u + sin * sin * v, cos * sin * (u - v), sin * sin * u + cos * cos * v], -1)


def away_from_steps(centre: Tensor, conic: Tensor, opacity: Tensor, size: tuple[int, int]) -> Tensor:
    """Opacities, a little lower where needed, for which no pixel has an α on one of its steps: [P, N]."""

    def near(block: tuple[Tensor, ...]) -> Tensor:
        alpha = unlimited_alphas(*(x.double() for x in block), size)  # type: ignore[call-arg,arg-type]
        return torch.stack([(alpha / step - 1).abs().amin((-1, -2)) < MARGIN for step in (MIN_ALPHA, MAX_ALPHA)]).any(0)

    while True:
        blocks = zip(centre.split(256, 1), conic.split(256, 1), opacity.split(256, 1), strict=True)
        on_a_step = torch.cat([near(block) for block in blocks], 1)
        if not on_a_step.any():
            return opacity
        opacity = torch.where(on_a_step, opacity * (1 - 7 * MARGIN), opacity)
