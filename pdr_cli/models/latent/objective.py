"""The objective of PV-VAE: restore whole clips from the latents of their beginnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pdr_cli.models.interfaces import Terms
from pdr_cli.models.latent.vae import VAE, Groups, whole

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig


class Clip(NamedTuple):
    """Training windows in whole groups of frames.

    Args:
        frames: [B, 1 + p·(G − 1), C, H, W].
        weight: 0 where a frame is a copy or a value is missing, else 1; a shape that broadcasts to that of `frames`.
        base: what frames behind the observed ones are changes from, [B, τ, C, H, W].
    """

    frames: Tensor
    weight: Tensor
    base: Tensor


def weight_of(groups: Groups, known: Tensor | None, device: torch.device) -> Tensor:
    """The weight of a clip whose values are `known`, [B, T + τ, C, H, W]; None: all are."""
    real = torch.ones(groups.in_steps + groups.out_steps, device=device)
    copies = real.new_zeros(groups.front), real.new_zeros(groups.surplus)
    frames = torch.cat([copies[0], real, copies[1]])[None, :, None, None, None]
    if known is None:
        return frames
    observed, following = known.split((groups.in_steps, groups.out_steps), dim=1)
    return frames * groups.clip(observed, following)


def kept(latent: LatentConfig, groups: Groups, batch: int, device: torch.device) -> Tensor:
    """How many latents of each window are kept, [B], drawn by `latent.drop`."""
    if latent.drop == "none":
        return torch.full((batch,), groups.total, device=device)
    forecast = torch.full((batch,), groups.observed, device=device)
    if latent.drop == "forecast":
        return forecast
    most = int((groups.total - 1) * latent.max_drop)
    uniform = groups.total - torch.randint(most + 1, (batch,), device=device)
    return (
        uniform if latent.drop == "uniform" else torch.where(torch.rand(batch, device=device) < 0.5, forecast, uniform)
    )


def restored(vae: VAE, latents: Tensor, keep: Tensor, clip: Clip) -> Tensor:
    """The clip from the first `keep` [B] of its latents [B, G, z, h, w].

    Frames decoded from tokens are changes from `base` where exactly the observed frames are kept, else from the last frame
    of the latents that are kept.
    """
    groups, frames = vae.groups, clip.frames
    last = groups.size * (keep - 1)  # [B], of the kept frames
    ahead = torch.arange(frames.shape[1], device=keep.device) > last[:, None]
    persistence = frames[torch.arange(len(keep), device=keep.device), last]
    forecast = torch.cat([frames[:, : -groups.size * groups.following], groups.after(clip.base)], dim=1)
    base = torch.where(_over(keep == groups.observed), forecast, persistence[:, None])
    return vae.decode(vae.fill(latents, keep)) + torch.where(_over(ahead), base, vae.mean)


def terms(latent: LatentConfig, vae: VAE, clip: Clip, encoded: tuple[Tensor, Tensor]) -> Terms:
    """The weighted losses of the VAE, from means and log variances of the latents of the clip.

    They are the squared errors of frames and of their temporal differences, and the KL divergence from a standard normal.
    """
    latents, keep = _drawn(vae, encoded), kept(latent, vae.groups, len(encoded[0]), clip.frames.device)
    error = restored(vae, latents, keep, clip) - clip.frames
    return _errors(latent, error, clip.weight) | _divergence(latent, encoded)


def image_terms(latent: LatentConfig, vae: VAE, clip: Clip, encoded: tuple[Tensor, Tensor]) -> Terms:
    """The same of each frame of the clip as a clip of its own; copies of frames are left out, latents of the clip unread."""
    groups = vae.groups
    real = slice(groups.front, groups.front + groups.in_steps + groups.out_steps)
    images = clip.frames[:, real].flatten(0, 1)[:, None]
    weight = clip.weight[:, real].expand(len(clip.frames), -1, -1, -1, -1).flatten(0, 1)[:, None]
    encoded = vae.encode(images)
    error = vae.decode(whole(_drawn(vae, encoded))) + vae.mean - images
    return {"reconstruction": latent.reconstruction_weight * _mean(error.square(), weight)} | _divergence(
        latent, encoded
    )


def rebuilding_terms(latent: LatentConfig, vae: VAE, clip: Clip, encoded: tuple[Tensor, Tensor]) -> Terms:
    """The errors of the second decoder, none of whose latents is dropped."""
    return _errors(latent, vae.decode_all(_drawn(vae, encoded)) + vae.mean - clip.frames, clip.weight)


# Of the stages of `latent.stages`: single frames, clips, and the second decoder with the encoder still.
IMAGES, CLIPS, REBUILDING = range(3)
STAGES: list[Callable[[LatentConfig, VAE, Clip, tuple[Tensor, Tensor]], Terms]] = [image_terms, terms, rebuilding_terms]


def _drawn(vae: VAE, encoded: tuple[Tensor, Tensor]) -> Tensor:
    """Latents by their means and log variances, in training with noise."""
    mean, log_variance = encoded
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if vae.training else mean


def _errors(latent: LatentConfig, error: Tensor, weight: Tensor) -> Terms:
    """The weighted squared errors of frames and of their temporal differences."""
    whole_weight = latent.reconstruction_weight
    return {
        "reconstruction": whole_weight * _mean(error.square(), weight),
        "difference": whole_weight
        * latent.difference_weight
        * _mean(error.diff(dim=1).square(), weight[:, 1:] * weight[:, :-1]),
    }


def _divergence(latent: LatentConfig, encoded: tuple[Tensor, Tensor]) -> Terms:
    """The weighted KL divergence of latents from a standard normal."""
    mean, log_variance = encoded
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return {"kl": latent.reconstruction_weight * latent.kl_weight * kl}


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (weight * values).sum() / weight.sum().clamp_min(1)


def _over(mask: Tensor) -> Tensor:
    """A mask of windows [B] or frames [B, T], to be used on clips [B, T, C, H, W]."""
    return mask[(...,) + (None,) * (5 - mask.dim())]
