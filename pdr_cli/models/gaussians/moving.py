"""Gaussians that move: their curves in time, the frame that they carry along, and the loss of their ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pdr_cli.models.motion import displaced, sample

MOVING = 0.5  # pixels from which a place counts as moving
SHRINK = 0.1  # weight of the length of a way, which keeps Gaussians still where the flow is noise
DAMPING = 0.1  # λ of a motion before it is learnt: a tenth of the speed is lost in each frame
GAIN = 10.0  # of the learnt λ over the other outputs of a head
GROWTH = (2.0, 10.0)  # frames in which a brightness changes
SMOOTH = 1e-4  # square of a length, pixels, below which an error counts as a square


def poly3(u: float, leads: int) -> list[float]:
    """u, u², u³: smooth between frames, and still at u = 0."""
    return [u, u**2, u**3]


def dct4(u: float, leads: int) -> list[float]:
    """cos(kπu) - 1, k = 1 … 4: curves that need not end where a polynomial does."""
    return [math.cos(k * math.pi * u) - 1 for k in range(1, 5)]


def free(u: float, leads: int) -> list[float]:
    """A number for each lead time, linear between them (arXiv 2511.00503 has one for each frame)."""
    return [max(0.0, 1 - abs(u * leads - lead)) for lead in range(1, leads + 1)]


BASES: Mapping[str, Callable[[float, int], list[float]]] = {"poly3": poly3, "dct4": dct4, "free": free}


def curves(weights: Tensor, name: str, times: Sequence[float], leads: int) -> Tensor:
    """Curves in time that are 0 at the last observed frame: weights [B, N, D, K] → [B, times, N, D].

    Args:
        weights: of the K functions of the basis.
        name: of `BASES`.
        times: in frames after the last observed one, at most `leads`.
        leads: τ, at which u = time / τ is 1.
    """
    basis = weights.new_tensor([BASES[name](time / leads, leads) for time in times])
    return torch.einsum("bndk,tk->btnd", weights, basis)


def growth(times: Sequence[float], like: Tensor) -> Tensor:
    """1 - e^{-t/T} for each T of `GROWTH`: bounded functions of time that are 0 at t = 0, [times, 2]."""
    return like.new_tensor([[1 - math.exp(-t / time) for time in GROWTH] for t in times])


def travelled(damping: Tensor, times: Sequence[float]) -> Tensor:
    """(1 - e^{-λt}) / λ, the way in frames of a motion that slows down at rate λ: [B, N, 1] → [B, times, N]."""
    t = damping.new_tensor(list(times))[:, None]
    slowed = (damping.mT * t).clamp_min(1e-4)
    return t * -torch.expm1(-slowed) / slowed


def damping_of(raw: Tensor) -> Tensor:
    """A rate above 0 that is `DAMPING` where the head gives 0."""
    return nn.functional.softplus(GAIN * raw + math.log(math.expm1(DAMPING)))


def transported(drawn: Tensor, last: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """The share of each pixel that follows Gaussians, [B, τ, 1, H, W], and the frame that they carry, [B, τ, C, H, W].

    Each pixel takes the value of the frame at its origin: its displacement is the mean of the ways of the Gaussians that
    have arrived there, weighted by their values.

    Args:
        drawn: Gaussians at the places that they have come to, rendered with the amplitudes of `carriers`, [B, τ, 3, H, W].
        last: the frame that they leave, [B, C, H, W].
        half: sum of weights at which half of a pixel follows.
    """
    cover, gap = drawn.split([1, 2], dim=2)
    return cover / (cover + half), displaced_at_each(last, gap / (cover + 1e-4))


def carriers(weight: Tensor, way: Tensor) -> Tensor:
    """Amplitudes of Gaussians that carry a frame: weight [..., N, 1] and the way covered, pixels [..., N, 2] → [..., N, 3]."""
    return torch.cat([weight, -weight * way], dim=-1)


def displaced_at_each(last: Tensor, gap: Tensor) -> Tensor:
    """A frame [B, C, H, W] read `gap` [B, τ, 2, H, W] pixels away → [B, τ, C, H, W]."""
    frames = last[:, None].expand(-1, gap.shape[1], -1, -1, -1)
    return displaced(frames.flatten(0, 1), gap.flatten(0, 1)).unflatten(0, gap.shape[:2])


def motion_loss(centre: Tensor, way: Tensor, tracks: Tensor, size: tuple[int, int]) -> Tensor:
    """2 ‖way − track‖₂ + 0.1 ‖way‖₁ in shares of the frame's shorter side, of trusted places.

    Moving and still places count half each, because most places of a video are still (`MOVING`).

    Args:
        centre: where each way begins, pixels, [B, N, 2]; it has no gradient.
        way: pixels, [B, τ, N, 2].
        tracks: see `tracking.tracks`, [B, τ, 3, h, w].
        size: (H, W) of the frames.
    """
    found = at_places(tracks, centre.detach(), size)
    track, trust = found[..., :2], found[..., 2]
    error = 2 * ((way - track).square().sum(dim=-1) + SMOOTH).sqrt() + SHRINK * way.abs().sum(dim=-1)
    return by_halves(error, (track.norm(dim=-1) > MOVING).to(trust), trust) / min(size)


def by_halves(error: Tensor, moves: Tensor, trust: Tensor) -> Tensor:
    """The mean error of the places that move and of those that do not, half each where both are; all of one shape.

    Args:
        error: of each place.
        moves: 1 where a place moves, else 0.
        trust: weight of each place.
    """
    groups = torch.stack([trust * moves, trust * (1 - moves)])
    total = groups.flatten(1).sum(dim=1)
    means = (groups * error).flatten(1).sum(dim=1) / total.clamp_min(1e-6)
    return means.sum() / (total > 0).sum().clamp_min(1)


def at_places(tracks: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Tracks [B, τ, 3, h, w] of frames (H, W) at places in pixels [B, N, 2], bilinear: [B, τ, N, 3]."""
    (H, W), (h, w) = size, tracks.shape[-2:]
    x, y = ((centre + 0.5) * centre.new_tensor([w / W, h / H]) - 0.5).unbind(dim=-1)
    x, y = (each.repeat_interleave(tracks.shape[1], dim=0)[:, None] for each in (x, y))  # [B·τ, 1, N]
    return sample(tracks.flatten(0, 1), x, y)[:, :, 0].mT.unflatten(0, tracks.shape[:2])
