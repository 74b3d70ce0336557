"""A U-Net (Ronneberger et al., 2015) for small data and few minutes: frames and covariates as channels, all leads at once."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.interfaces import Frames, OnePass
from pdr_cli.models.layers import NormedSiLU, mean_around, pad_to_multiple, window_sums
from pdr_cli.models.predictors.simvp import go_round

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

GROUPS = 4  # of GroupNorm, where the width allows them
AROUND = 15  # side of the square around a cell whose mean is its level
STATIC = 4  # channels of the learned map
STATIC_SCALE = 0.02  # standard deviation of its initial values


class UNet(OnePass):
    """Convolutions at the full grid and at `n_s`/2 coarser ones, with skips; one pass gives all frames of training.

    The inputs are the T frames, the covariates of all T + n times and a learned map, which holds what is particular to
    each cell; therefore a model is for one grid. The last convolution starts at zero, so that the first forecast is that
    of the anchor, or zero without one. With an anchor the network reads changes and local departures (`without_level`).

    Args:
        frames: T, C, the grid, n = `out_steps` (T if that is 0) and F = `covariates`.
        options: `hid_s` channels of the full grid (32 for weather on 25 x 53 cells), `hid_t` of the coarser ones (48),
            `n_s`/2 coarser grids, each half as fine (`n_s` 4), `n_t` blocks on each grid, half of them before the coarser
            grids and half after (2), and `dropout` of whole channels in each block (0.1).
    """

    of_cells = ("static",)

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__(frames.out_steps or frames.in_steps)
        if options.n_s % 2:
            raise ConfigError(f"model.n_s is {options.n_s}", "2 or another even number")
        self.frames, self.anchored = frames, options.anchor != "none"
        self.multiple: int = 2 ** (options.n_s // 2)
        self.static = nn.Parameter(torch.randn(STATIC, *frames.size) * STATIC_SCALE)
        mixed = self._mix_covariates(options.hid_s)
        self.enter = convolve(frames.in_steps * frames.channels + mixed + STATIC, options.hid_s)
        self.levels: nn.Module = blocks(options.hid_t, options.n_t, options.dropout)
        for level in reversed(range(options.n_s // 2)):
            self.levels = Level(options.hid_t if level else options.hid_s, self.levels, options)
        self.head = nn.Conv2d(options.hid_s, self.gives * frames.channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # there is a bias
        if frames.periodic:
            go_round(self)

    def _mix_covariates(self, most: int) -> int:
        """Make the layer that reduces the covariates of all times to at most `most` channels; returns their number."""
        given = (self.frames.in_steps + self.gives) * self.frames.covariates
        self.mix = nn.Conv2d(given, min(given, most), 1) if given else None
        return min(given, most)

    def one_pass(self, seen: Tensor, covariates: Tensor | None = None) -> Tensor:
        """See `OnePass.one_pass`.

        Raises:
            DataError: another grid or number of frames or of covariates than those the network was built for.
        """
        self._check(seen, covariates)
        seen = without_level(seen, self.frames.periodic) if self.anchored else seen
        inputs = [seen.flatten(1, 2), self.static.expand(seen.shape[0], -1, -1, -1)]
        if self.mix is not None and covariates is not None:
            inputs.append(self.mix(covariates.flatten(1, 2)))
        H, W = self.frames.size
        x = self.enter(pad_to_multiple(torch.cat(inputs, dim=1), self.multiple, self.frames.periodic))
        return self.head(self.levels(x))[..., :H, :W].unflatten(1, (self.gives, -1))

    def stages(self) -> list[nn.Module]:
        """See `Predictor.stages`: each block and each change of the grid."""
        levels = [module for module in self.modules() if isinstance(module, Level)]
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        return [self.enter, *blocks, *(part for level in levels for part in (level.down, level.up))]

    def _check(self, seen: Tensor, covariates: Tensor | None) -> None:
        T, C, size, F = self.frames.in_steps, self.frames.channels, self.frames.size, self.frames.covariates
        if (*seen.shape[1:3], *seen.shape[3:]) != (T, C, *size):
            shapes = (" x ".join(str(n) for n in shape) for shape in (seen.shape[1:], (T, C, *size)))
            raise DataError(f"the input is {next(shapes)}", f"{next(shapes)}, which the model takes")
        given = 0 if covariates is None else covariates.shape[2]
        if given != F:
            raise DataError(f"the input has {given} covariates", f"{F}, which the model takes")


def without_level(frames: Tensor, periodic: bool) -> Tensor:
    """The change of earlier frames to the last, and the last less the mean around each cell: [B, T, C, H, W].

    A change from an anchor hardly depends on the level of the field, which a season that training has not seen, or another
    year, shifts beyond what the network knows.
    """
    last = frames[:, -1:]
    reach, W = AROUND // 2, last.shape[-1]
    values = last[:, 0]
    if periodic:  # with the columns beyond the seam, in place of a border without values
        turns = -(-reach // W)
        values = torch.cat([values] * (2 * turns + 1), dim=-1)[..., turns * W - reach : (turns + 1) * W + reach]
        around = window_sums(mean_around(values, reach, dim=-2), AROUND, dim=-1) / AROUND
    else:
        around = mean_around(mean_around(values, reach, dim=-2), reach, dim=-1)
    return torch.cat([frames[:, :-1] - last, last - around[:, None]], dim=1)


class Level(nn.Module):
    """A grid and the coarser ones inside it: blocks, half the grid, what is inside, the full grid, blocks."""

    def __init__(self, width: int, inside: nn.Module, options: ModelConfig) -> None:
        super().__init__()
        before = options.n_t // 2
        self.before = blocks(width, before, options.dropout)
        self.down = convolve(width, options.hid_t, stride=2)
        self.inside = inside
        self.up = nn.Sequential(nn.Conv2d(options.hid_t, 4 * width, 1), nn.PixelShuffle(2))
        self.after = blocks(width, options.n_t - before, options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        skip = self.before(x)
        return self.after(self.up(self.inside(self.down(skip))) + skip)


class Block(nn.Module):
    """A residual convolution, of which dropout leaves out whole channels in training."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(convolve(width, width), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        return x + self.body(x)


def blocks(width: int, count: int, dropout: float) -> nn.Sequential:
    """`count` blocks in sequence."""
    return nn.Sequential(*(Block(width, dropout) for _ in range(count)))


def convolve(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, GroupNorm, SiLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return NormedSiLU(conv, nn.GroupNorm(gcd(GROUPS, outputs), outputs), nn.SiLU())
