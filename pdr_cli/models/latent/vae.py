"""A causal VAE of clips: 1 + p·(G − 1) frames to G latents and back; latents that are dropped become learned tokens."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pdr_cli.errors import ConfigError
from pdr_cli.models import noise
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.latent.causal import Block, CausalTime, ChannelRMS, SpaceAttention
from pdr_cli.models.layers import pad_to_multiple

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig
    from pdr_cli.schema import ModelConfig

LOWEST, HIGHEST, FIRST = -12.0, 4.0, -4.0  # log variance of a latent: its bounds, and its initial value
TOKEN_SCALE = 0.1  # standard deviation of the initial tokens


class Groups(NamedTuple):
    """How the frames of a window are grouped; each group has one latent, and the first frame one of its own.

    Args:
        in_steps: T.
        out_steps: τ.
        size: p, frames of a group.
    """

    in_steps: int
    out_steps: int
    size: int

    @property
    def observed(self) -> int:
        """Latents of the observed frames."""
        return 1 + -(-(self.in_steps - 1) // self.size)

    @property
    def following(self) -> int:
        """Latents of the frames to forecast."""
        return -(-self.out_steps // self.size)

    @property
    def total(self) -> int:
        """G, of both."""
        return self.observed + self.following

    @property
    def front(self) -> int:
        """Copies of the first frame before it, which make the observed groups whole."""
        return 1 + self.size * (self.observed - 1) - self.in_steps

    @property
    def surplus(self) -> int:
        """Copies of the last frame after it, which make the following groups whole."""
        return self.size * self.following - self.out_steps

    def before(self, observed: Tensor) -> Tensor:
        """Observed frames [B, T, ...] in whole groups: [B, front + T, ...]."""
        return torch.cat([observed[:, :1]] * self.front + [observed], dim=1)

    def after(self, following: Tensor) -> Tensor:
        """Following frames [B, n, ...], n at most τ, in whole groups: [B, τ + surplus, ...]."""
        extra = self.size * self.following - following.shape[1]
        return torch.cat([following] + [following[:, -1:]] * extra, dim=1)

    def clip(self, observed: Tensor, following: Tensor) -> Tensor:
        """Both: [B, 1 + p·(G − 1), ...]."""
        return torch.cat([self.before(observed), self.after(following)], dim=1)


class VAE(nn.Module):
    """Encoder and decoder, both causal in time. Frames are anomalies from the mean of their cells.

    With stages there is a second decoder, for latents of which none is dropped: its weights are kept as their differences from
    the first one's, which are 0 until its stage, so that it begins as a copy of it wherever training is cut off and resumed.

    Args:
        frames: C, (H, W) and whether columns go round.
        options: `hid_s` channels of the finest level, each coarser one twice as many up to `hid_t` at the latents, n_s/2
            halvings of the grid, `n_t` blocks at the latents.
        latent: z channels of a latent, p frames of a group, what stands for a dropped latent.
        groups: of a window.

    Raises:
        ConfigError: no halving of the grid, or too few blocks for a token to see two observed latents.
    """

    mean: Tensor  # [C, H, W], of each cell over the training data
    measured: Tensor

    def __init__(self, frames: Frames, options: ModelConfig, latent: LatentConfig, groups: Groups) -> None:
        super().__init__()
        levels = options.n_s // 2
        if options.n_s % 2:
            raise ConfigError(f"model.n_s is {options.n_s}", "2 or another even number")
        self.frames, self.latent, self.groups = frames, latent, groups
        self.multiple: int = 2**levels
        widths = [min(options.hid_s * 2**level, options.hid_t) for level in range(levels - 1)] + [options.hid_t]
        self.encoder = Encoder(frames.channels, widths, options.n_t, latent)
        self.decoder = Decoder(frames.channels, widths, options.n_t, latent)
        self.tokens = nn.Parameter(
            TOKEN_SCALE * torch.randn(groups.total - 1 if latent.pad == "lead" else 1, latent.channels)
        )
        self.second = Decoder(frames.channels, widths, options.n_t, latent) if latent.stages else None
        if self.second is not None:
            for parameter in self.second.parameters():
                nn.init.zeros_(parameter)
        self.register_buffer("mean", torch.zeros(frames.channels, *frames.size))
        self.register_buffer("measured", torch.tensor(False))
        if 2 * self.decoder.reach < groups.following + 1:
            raise ConfigError(
                f"model.n_t is {options.n_t}, and the decoder's {self.decoder.reach} blocks do not reach from the last of "
                f"{groups.following} groups of frames to two observed ones",
                way_out=f"take more blocks with --set model.n_t={groups.following // 2 + 1}, or larger groups with latent.group",
            )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of a latent."""
        H, W = self.frames.size
        return -(-H // self.multiple), -(-W // self.multiple)

    def encode(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1 + p·(g − 1), C, H, W] → mean and log variance of g latents, each [B, g, z, h, w]."""
        steps = clip.shape[1]
        folded = pad_to_multiple((clip - self.mean).flatten(0, 1), self.multiple, self.frames.periodic)
        made = self.encoder(folded, steps).float().unflatten(0, (-1, 1 + (steps - 1) // self.groups.size))
        mean, log_variance = made.chunk(2, dim=2)
        return mean, log_variance.clamp(LOWEST, HIGHEST)

    def fill(self, latents: Tensor, keep: Tensor) -> Tensor:
        """Tokens in place of all but the first `keep` [B] latents, and a channel that is 1 where they are kept.

        [B, g, z, h, w] → [B, g, z + 1, h, w].
        """
        place = torch.arange(latents.shape[1], device=latents.device)
        kept = (place < keep[:, None])[..., None, None, None]
        behind = (place - keep[:, None]).clamp(0, len(self.tokens) - 1)
        tokens = self._noise(latents) if self.latent.pad == "noise" else self.tokens[behind][..., None, None]
        mask = kept.to(latents.dtype).expand(-1, -1, -1, *latents.shape[3:])
        return torch.cat([torch.where(kept, latents, tokens), mask], dim=2)

    def _noise(self, latents: Tensor) -> Tensor:
        """Noise in place of tokens; in a forecast the same for every window."""
        if self.training:
            return torch.randn_like(latents)
        return noise.normal(torch.zeros(1, dtype=torch.int64, device=latents.device), 0, *latents.shape[1:])

    def decode(self, filled: Tensor, second: bool = False) -> Tensor:
        """[B, g, z + 1, h, w] → [B, 1 + p·(g − 1), C, H, W], without the mean of the cells."""
        g, (H, W) = filled.shape[1], self.frames.size
        decoder = self._second if second else self.decoder
        made = decoder(filled.flatten(0, 1), g).float()
        return made[..., :H, :W].unflatten(0, (-1, 1 + self.groups.size * (g - 1)))

    def _second(self, latents: Tensor, count: int) -> Tensor:
        """The second decoder; the first one, which its weights are differences from, has no gradients."""
        if self.second is None:
            return self.decoder(latents, count)
        further = dict(self.second.named_parameters())
        weights = {name: value.detach() + further[name] for name, value in self.decoder.named_parameters()}
        return functional_call(self.decoder, weights, (latents, count))

    def decode_all(self, latents: Tensor) -> Tensor:
        """`decode` of latents of which none is dropped, [B, g, z, h, w], by the second decoder if there is one."""
        return self.decode(whole(latents), second=True)


def whole(latents: Tensor) -> Tensor:
    """Latents of which none is dropped, and their channel of ones: [B, g, z, h, w] → [B, g, z + 1, h, w]."""
    return torch.cat([latents, torch.ones_like(latents[:, :, :1])], dim=2)


class Encoder(nn.Module):
    """Frames to the means and log variances of their latents; time is halved at the coarsest levels.

    Args:
        channels: C.
        widths: channels of each level, from the finest.
        blocks: at the latents; half as many at the other levels, at least one.
        latent: z, p, and whether attention over space follows the blocks at the latents.
    """

    def __init__(self, channels: int, widths: list[int], blocks: int, latent: LatentConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        counts = [fewer(blocks)] * (len(widths) - 1) + [blocks]
        levels = zip([0, *widths], widths, halvings(len(widths), latent.group), counts, strict=False)
        self.levels = nn.ModuleList(Down(*level, latent.conv3d) for level in levels)
        self.attention: nn.Module = SpaceAttention(widths[-1]) if latent.attention else nn.Identity()
        self.norm = ChannelRMS(widths[-1])
        self.leave = nn.Conv2d(widths[-1], 2 * latent.channels, 3, padding=1)
        with torch.no_grad():
            self.leave.bias[latent.channels :] = FIRST  # type: ignore[index]  # there is a bias

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """[B·T, C, H, W] → [B·g, 2z, h, w]."""
        x = self.enter(nn.functional.pixel_unshuffle(x, 2))
        for level in self.levels:
            x, steps = level(x, steps)
        return self.leave(nn.functional.silu(self.norm(self.attention(x))))


class Down(nn.Module):
    """A level of the encoder: half the grid of the level before, half its frames as often as asked, and blocks."""

    def __init__(self, before: int, width: int, halvings: int, blocks: int, conv3d: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, width, 3, stride=2, padding=1) if before else None
        self.halve = nn.ModuleList(CausalTime(width, width, stride=2) for _ in range(halvings))
        self.blocks = nn.ModuleList(Block(width, conv3d) for _ in range(blocks))

    def forward(self, x: Tensor, steps: int) -> tuple[Tensor, int]:
        """[B·steps, c, h, w] → the level's frames, and how many they are."""
        x = x if self.down is None else self.down(x)
        for halve in self.halve:
            x, steps = halve(x, steps), (steps + 1) // 2
        for block in self.blocks:
            x = block(x, steps)
        return x, steps


class Decoder(nn.Module):
    """Latents and their mask to frames; see `Encoder` for the arguments.

    Attributes:
        reach: blocks at the latents; a latent sees the two before it in each.
    """

    def __init__(self, channels: int, widths: list[int], blocks: int, latent: LatentConfig) -> None:
        super().__init__()
        self.group = latent.group
        self.reach = blocks + fewer(blocks)
        coarsest = widths[-1]
        self.enter = nn.Conv2d(latent.channels + 1, coarsest, 3, padding=1)
        self.blocks = nn.ModuleList(Block(coarsest, latent.conv3d) for _ in range(self.reach))
        self.attention: nn.Module = SpaceAttention(coarsest) if latent.attention else nn.Identity()
        self.spread = nn.Conv2d(coarsest, latent.group * coarsest, 1)
        pairs = zip(widths[::-1], widths[-2::-1], strict=False)
        self.levels = nn.ModuleList(Up(before, width, fewer(blocks), latent.conv3d) for before, width in pairs)
        self.norm = ChannelRMS(widths[0])
        self.leave = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(self, x: Tensor, count: int) -> Tensor:
        """[B·g, z + 1, h, w] → [B·T, C, H, W]."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, count)
        groups = self.spread(self.attention(x)).unflatten(1, (self.group, -1)).flatten(0, 1)
        frames = groups.unflatten(0, (-1, count * self.group))
        x, steps = frames[:, self.group - 1 :].flatten(0, 1), 1 + self.group * (count - 1)
        for level in self.levels:
            x = level(x, steps)
        return nn.functional.pixel_shuffle(self.leave(nn.functional.silu(self.norm(x))), 2)


class Up(nn.Module):
    """A level of the decoder: the grid of the level before twice as fine, and blocks."""

    def __init__(self, before: int, width: int, blocks: int, conv3d: bool) -> None:
        super().__init__()
        self.up = nn.Conv2d(before, 4 * width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, conv3d) for _ in range(blocks))

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """[B·steps, before, h, w] → [B·steps, width, 2h, 2w]."""
        x = nn.functional.pixel_shuffle(self.up(x), 2)
        for block in self.blocks:
            x = block(x, steps)
        return x


def halvings(levels: int, group: int) -> list[int]:
    """How often each level of the encoder halves the frames: the coarsest first, the finest only if it is the only one."""
    counts = [0] * levels
    for number in range(round(log2(group))):
        counts[max(levels - 1 - number, min(1, levels - 1))] += 1
    return counts


def fewer(blocks: int) -> int:
    """Blocks of a level finer than the latents."""
    return max(1, blocks // 2)
