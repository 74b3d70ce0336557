"""DMVFN (Hu et al., CVPR 2023): moves the last two frames along flows, found by blocks that are selected per sample.

The loss has the published part on Laplacian pyramids, but not the perceptual part, half a distance between the VGG-19
features of the last block's frame and of the target, because it needs weights trained on photographs. A forecast uses the
blocks whose probability is at least one half, so it is deterministic; OpenSTL draws them in forecasts too. Blocks that are
not selected are computed all the same: skipping them would save no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Anchoring, Batch, Frames, Predictor, Terms, target_of
from pdr_cli.models.layers import pad_to_multiple, where_known

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

# From the coarsest to the finest scale: the factor between the grids, and the width of a block over hid_t (160, 80 and 44).
SCALES, WIDTHS = (4, 2, 1), (1.0, 0.5, 0.275)
MULTIPLE = 16  # blocks halve the coarsest grid twice
DETAIL = 8  # channels of a block's branch at half the full grid
USAGE = 0.5  # β: mean share of the blocks that are selected
DECAY = 0.8  # γ: weight of a block's frame in the loss over that of the next block's
LEVELS = 5  # of the Laplacian pyramids
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class DMVFN(Predictor):
    """n_t blocks each at a quarter of the grid, at half of it and at the full grid.

    The next frame is forecast from the last frame and the one before it.

    Args:
        frames: T, at least 2, and C.
        options: `hid_s` channels of the routing module (authors: 32), `hid_t` channels of the widest blocks (160), `n_t`
            blocks at each scale (3).

    Raises:
        ConfigError: a single observed frame.
    """

    def __init__(self, frames: Frames, options: ModelConfig) -> None:
        super().__init__()
        if frames.in_steps < 2:
            raise ConfigError(
                "data.in_steps is 1", "2 or more, because dmvfn reads motion from two frames", "--set data.in_steps=2"
            )
        self.blocks = nn.ModuleList(
            VoxelFlowBlock(frames.channels, multiple_of_4(options.hid_t * share), scale)
            for scale, share in zip(SCALES, WIDTHS, strict=True)
            for _ in range(options.n_t)
        )
        self.routing = Routing(frames.channels, options.hid_s, len(self.blocks))

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; moved frames need no anchor, so `anchor` changes nothing."""
        H, W = x.shape[-2:]
        before, last = (pad_to_multiple(x[:, t], MULTIPLE) for t in (-2, -1))
        frames = []
        for _ in range(steps or x.shape[1]):
            frames.append(self.advance(before, last)[-1])
            before, last = last, self.bounded(frames[-1])
        return torch.stack(frames, dim=1)[..., :H, :W]

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """Each frame, observed ones too, from the two true frames before it, and the pyramid loss of all of them."""
        x = batch.observed
        true = torch.cat([x, target_of(batch)], dim=1)
        following, (H, W) = true[:, 2:].flatten(0, 1), x.shape[-2:]
        before, last = (pad_to_multiple(two.flatten(0, 1), MULTIPLE) for two in (true[:, :-2], true[:, 1:-1]))
        made = [frames[..., :H, :W] for frames in self.advance(before, last)]
        known = None if batch.known is None else batch.known[:, 2:].flatten(0, 1)
        loss = torch.stack([pyramid_distance(where_known(frames, following, known), following) for frames in made])
        weights = DECAY ** torch.arange(len(made) - 1, -1, -1, device=loss.device)
        frames = made[-1].unflatten(0, (len(x), -1))[:, x.shape[1] - 2 :]
        return frames, {"pyramid_loss": (weights * loss).sum()}

    def advance(self, before: Tensor, last: Tensor) -> list[Tensor]:
        """The frame that follows two frames, all [B, C, H', W'] with multiples of 16; it is the last of the list.

        In training, a frame for each block but the last, as if that block was selected, precedes it.
        """
        selected = self.routing(torch.cat([before, last], dim=1))[..., None, None, None]  # [B, blocks, 1, 1, 1]
        voxels = torch.zeros_like(before[:, :1]).repeat(1, 5, 1, 1)
        moved, made = (before, last), []
        for i, block in enumerate(self.blocks):
            change = block(torch.cat([before, last, *moved], dim=1), voxels)
            if self.training and i < len(self.blocks) - 1:
                made.append(mix(move(before, last, voxels + change), voxels + change))
            voxels = voxels + selected[:, i] * change
            moved = move(before, last, voxels)
        return [*made, mix(moved, voxels)]


class Routing(nn.Module):
    """Selects blocks: in training at random, with the gradients of the probabilities; else those of at least one half."""

    def __init__(self, channels: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1)
        )
        self.rate = nn.Linear(hidden, blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, 2·C, H', W'] → [B, blocks], 0 or 1."""
        p = probabilities(self.rate(self.look(frames).mean(dim=(2, 3))))
        if not self.training:
            return (p >= 0.5).to(p)
        return torch.bernoulli(p.detach()) + (p - p.detach())


class VoxelFlowBlock(nn.Module):
    """A change of the voxel flow, from a coarse view of the motion and a detailed one."""

    def __init__(self, channels: int, width: int, scale: int) -> None:
        super().__init__()
        inputs = 4 * channels + 5
        self.scale = scale
        self.enter = nn.Sequential(conv(inputs, width // 2, 2), conv(width // 2, width, 2))
        self.motion = nn.Sequential(*(conv(width, width) for _ in range(3)))
        self.squeeze = conv(width, width // 4)
        self.detail = nn.Sequential(conv(inputs, DETAIL, 2), conv(DETAIL, DETAIL))
        self.out = nn.ConvTranspose2d(width // 4 + DETAIL, 5, 4, 2, 1)

    def forward(self, frames: Tensor, voxels: Tensor) -> Tensor:
        """frames: [B, 4·C, H', W'], two frames and the same moved; voxels: [B, 5, H', W'] → the change of `voxels`."""
        in_its_pixels = torch.cat([frames, voxels[:, :4] / self.scale, voxels[:, 4:]], dim=1)
        motion = self.enter(resize(in_its_pixels, 1 / self.scale))
        motion = resize(self.squeeze(self.motion(motion) + motion), 2 * self.scale)
        return self.out(torch.cat([motion, self.detail(torch.cat([frames, voxels], dim=1))], dim=1))


def probabilities(rates: Tensor) -> Tensor:
    """Probability of each block, [B, blocks]: in proportion to sigmoid(rates), β on average, at most 1."""
    share = torch.sigmoid(rates.float())
    return (USAGE * rates.shape[1] * share / share.sum(dim=1, keepdim=True)).clamp(max=1)


def move(before: Tensor, last: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames moved along their flows, the first two and the next two channels of `voxels`."""
    return warp(before, voxels[:, :2]), warp(last, voxels[:, 2:4])


def mix(moved: tuple[Tensor, Tensor], voxels: Tensor) -> Tensor:
    """Weighted mean of the moved frames; the weight of the first is the sigmoid of the last channel of `voxels`."""
    share = torch.sigmoid(voxels[:, 4:])
    return share * moved[0] + (1 - share) * moved[1]


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Values `flow` pixels to the right and below, with edges repeated outside: [B, C, H, W] and [B, 2, H, W]."""
    H, W = frames.shape[-2:]
    y, x = torch.arange(H, device=flow.device), torch.arange(W, device=flow.device)[None]
    # From pixels to grid_sample's −1 to 1 between the outer sides of the outer pixels.
    places = torch.stack(
        [(2 * (x + flow[:, 0]) + 1) / W - 1, (2 * (y[:, None] + flow[:, 1]) + 1) / H - 1], dim=-1
    )  # [B, H, W, 2]
    return nn.functional.grid_sample(frames, places.to(frames), padding_mode="border", align_corners=False)


def pyramid_distance(pred: Tensor, target: Tensor) -> Tensor:
    """L1 between the Laplacian pyramids of frames [P, C, H, W], summed over 5 levels, the last of which is the residual."""
    with torch.autocast(pred.device.type, enabled=False):
        rest = (pred - target).float()
        distance = rest.new_zeros(())
        for _ in range(LEVELS - 1):
            smaller = blur(rest, torch.ones_like(rest[:1, :1]))[..., ::2, ::2]
            distance = distance + (rest - expand(smaller, rest.shape)).abs().mean()
            rest = smaller
        return distance + rest.abs().mean()


def expand(smaller: Tensor, shape: torch.Size) -> Tensor:
    """`smaller`, every second row and column of a frame of `shape`, interpolated to `shape`."""
    spread, known = smaller.new_zeros(shape), smaller.new_zeros(1, 1, *shape[2:])
    spread[..., ::2, ::2], known[..., ::2, ::2] = smaller, 1
    return blur(spread, known)


def blur(frames: Tensor, known: Tensor) -> Tensor:
    """Binomial mean over 5 × 5 pixels of those with 1 in `known` [1, 1, H, W]; all others must be 0."""
    row = torch.tensor(BINOMIAL, device=frames.device)
    kernel = (row[:, None] * row)[None, None]
    sums = nn.functional.conv2d(frames.flatten(0, 1)[:, None], kernel, padding=2).view(frames.shape)
    return sums / nn.functional.conv2d(known, kernel, padding=2)


def resize(frames: Tensor, factor: float) -> Tensor:
    """Bilinear interpolation, aligned at the outer edges of the outer pixels."""
    return nn.functional.interpolate(frames, scale_factor=factor, mode="bilinear", align_corners=False)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, PReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


def multiple_of_4(width: float) -> int:
    """The nearest multiple of 4, at least 4."""
    return max(4, 4 * round(width / 4))
