"""Networks that draw the latents of a future behind those of the past: by a rectified flow, or in one pass by CRPS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.latent.causal import ChannelRMS, SpaceAttention

if TYPE_CHECKING:
    from pdr_cli.models.latent.vae import Groups
    from pdr_cli.optional_tables import LatentConfig

FREQUENCIES, SLOWEST = 32, 1000.0  # of the embedding of the flow's time, and the ratio of the fastest to the slowest
ALMOST = 0.05 / 2  # ε of the almost fair CRPS of two members (Lang et al. 2024, AIFS-CRPS)


class Condition(NamedTuple):
    """What a future is drawn from, standardised.

    Args:
        past: latents of the observed frames, [B, g_o, z, h, w].
        guess: latents of the forecast that the future departs from, [B, g_f, z, h, w]; None without one.
        further: what else is known of all latents, [B, g_o + g_f, further, h, w]; None: nothing.
    """

    past: Tensor
    guess: Tensor | None
    further: Tensor | None = None


class LatentFlow(nn.Module):
    """A rectified flow (Liu et al. 2022) from noise to the latents of the future, or to their departure from a guess.

    Args:
        latent: z, `flow_width`, `flow_depth`, `flow_steps`, whether there is a guess, and whether every second block attends.
        groups: observed and following.
        further: channels of what else is known.
    """

    def __init__(self, latent: LatentConfig, groups: Groups, further: int = 0) -> None:
        super().__init__()
        width, channels = latent.flow_width, latent.channels
        self.steps, self.following = latent.flow_steps, groups.following
        inputs = channels * (1 if latent.guess == "none" else 2) + 1 + further
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(groups.total, width, 1, 1))
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        attends = [latent.attention and number % 2 == 1 for number in range(latent.flow_depth)]
        self.blocks = nn.ModuleList(FlowBlock(width, every) for every in attends)
        self.norm = ChannelRMS(width)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """The velocity of the latents x [B, g_f, z, h, w] at the time s [B] of the flow, 0 to 1: the same shape."""
        past, guess, further = condition
        known = torch.cat([torch.ones_like(past[:, :, :1]), torch.zeros_like(x[:, :, :1])], dim=1)
        inputs = [torch.cat([past, x], dim=1), known]
        if guess is not None:
            inputs.append(torch.cat([past, guess], dim=1))
        if further is not None:
            inputs.append(further)
        groups = past.shape[1] + x.shape[1]
        h = self.enter(torch.cat(inputs, dim=2).flatten(0, 1))
        h = (h.unflatten(0, (-1, groups)) + self.position).flatten(0, 1)
        time = self.time(embedded(s)).repeat_interleave(groups, 0)
        for block in self.blocks:
            h = block(h, time, groups)
        made = self.leave(nn.functional.silu(self.norm(h))).float()
        return made.unflatten(0, (-1, groups))[:, past.shape[1] :]

    def loss(self, future: Tensor, condition: Condition) -> Tensor:
        """The mean squared error of the velocity at random times between noise and `future`, [B, g_f, z, h, w]."""
        start, s = torch.randn_like(future), torch.sigmoid(torch.randn(len(future), device=future.device))
        share = s[:, None, None, None, None]
        velocity = self((1 - share) * start + share * future, s, condition)
        return nn.functional.mse_loss(velocity, future - start)

    def draw(self, start: Tensor, condition: Condition) -> Tensor:
        """A future from standard normal numbers, both [B, g_f, z, h, w], in Euler steps."""
        x = start
        for step in range(self.steps):
            s = torch.full_like(x[:, 0, 0, 0, 0], step / self.steps)
            x = x + self(x, s, condition) / self.steps
        return x


class LatentCRPS(LatentFlow):
    """The same network in one pass from noise to the future, trained by the almost fair CRPS of two members.

    It is the control of the flow: a generative model has to be better than this.
    """

    def loss(self, future: Tensor, condition: Condition) -> Tensor:
        """The almost fair CRPS of two members of `future`, [B, g_f, z, h, w]."""
        first, second = (self.draw(torch.randn_like(future), condition) for _ in range(2))
        error = ((first - future).abs() + (second - future).abs()) / 2
        return (error - (1 - ALMOST) / 2 * (first - second).abs()).mean()

    def draw(self, start: Tensor, condition: Condition) -> Tensor:
        """See `LatentFlow.draw`; one pass."""
        return self(start, torch.ones_like(start[:, 0, 0, 0, 0]), condition)


GENERATORS: dict[str, type[LatentFlow]] = {"flow": LatentFlow, "crps": LatentCRPS}


class FlowBlock(nn.Module):
    """A residual block, scaled and shifted by the flow's time, that looks both ways in time; it begins as the identity.

    Args:
        width: its channels.
        attends: whether attention over space follows.
    """

    def __init__(self, width: int, attends: bool = False) -> None:
        super().__init__()
        self.before, self.between = ChannelRMS(width), ChannelRMS(width)
        self.modulate = nn.Linear(width, 2 * width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.neighbours = nn.Conv2d(3 * width, width, 1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        for layer in (self.modulate, self.last):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.attention = SpaceAttention(width) if attends else None

    def forward(self, x: Tensor, time: Tensor, groups: int) -> Tensor:
        """x: [B·groups, width, h, w]; time: [B·groups, width] → the shape of x."""
        scale, shift = self.modulate(time)[..., None, None].chunk(2, dim=1)
        h = self.space(nn.functional.silu(self.before(x) * (1 + scale) + shift))
        h = h + self.neighbours(with_neighbours(h.unflatten(0, (-1, groups))).flatten(0, 1))
        x = x + self.last(nn.functional.silu(self.between(h)))
        return x if self.attention is None else self.attention(x)


def with_neighbours(frames: Tensor) -> Tensor:
    """The group before, the group itself and the group after, zeros beyond the ends: [B, g, c, h, w] → [B, g, 3c, h, w]."""
    none = torch.zeros_like(frames[:, :1])
    padded = torch.cat([none, frames, none], dim=1)
    return torch.cat([padded[:, k : k + frames.shape[1]] for k in range(3)], dim=2)


def embedded(s: Tensor) -> Tensor:
    """Sines and cosines of the times s, [B] → [B, 64]."""
    rates = torch.exp(-math.log(SLOWEST) / FREQUENCIES * torch.arange(FREQUENCIES, device=s.device))
    angles = SLOWEST * s[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
