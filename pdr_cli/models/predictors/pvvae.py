"""PV-VAE (arXiv 2605.02134): a video VAE that forecasts, because its decoder restores frames whose latents were dropped.

The encoder is causal, so that latents which are dropped after encoding the whole window are those of the beginning alone.
What is different here: half the windows drop exactly what is to be forecast, a token has a vector for its distance, and the
frames decoded from tokens are changes from the anchor's. A generator in the latent space draws members.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdr_cli.models.interfaces import Anchoring, Batch, Frames, Predictor, Terms, target_of
from pdr_cli.models.latent import objective
from pdr_cli.models.latent.members import Members
from pdr_cli.models.latent.objective import Clip
from pdr_cli.models.latent.vae import VAE, Groups
from pdr_cli.models.layers import rollout
from pdr_cli.models.predictors.simvp import go_round
from pdr_cli.models.shares import place

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig
    from pdr_cli.schema import ModelConfig


class PVVAE(Predictor):
    """The direct forecast decodes tokens behind the latents of the observed frames; members are drawn in their place.

    Args:
        frames: T, τ, C, (H, W) and whether columns go round.
        options: see `VAE`; with `anchor` "none" tokens decode to frames.
        latent: the [latent] table. With a generator the VAE is not trained.
    """

    added = ("members.", "inflation")
    inflation: Tensor | None  # [τ], of the departures of members from the direct forecast

    def __init__(self, frames: Frames, options: ModelConfig, latent: LatentConfig) -> None:
        super().__init__()
        self.latent = latent
        self.groups = Groups(frames.in_steps, frames.out_steps or frames.in_steps, latent.group)
        self.vae = VAE(frames, options, latent, self.groups)
        self.members = None if latent.generator == "none" else Members(latent, self.groups)
        self.stochastic = self.members is not None
        self.parts = () if self.stochastic else tuple(latent.stages)
        rebuilt = bool(self.parts) and self.parts[objective.REBUILDING] > 0
        self.scored_by_terms = (latent.drop == "none" or rebuilt) and not self.stochastic
        self.keeps = self.stochastic
        self.guided = self.stochastic and latent.guess not in ("self", "none")  # the anchor is a whole network
        inflation = None if latent.inflate == "none" else torch.ones(self.groups.out_steps)
        self.register_buffer("inflation", inflation)
        if self.stochastic:
            self.vae.requires_grad_(False)
        if frames.periodic:
            go_round(self)

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; τ steps by default. With `seeds` each window is a member, if there is a generator."""
        steps = steps or self.groups.out_steps

        def one_pass(seen: Tensor, first: int) -> Tensor:
            latents = self._encoded(seen)
            direct = self._direct(latents, self._anchor_frames(seen, anchor, first, steps - first))
            if seeds is None or self.members is None:
                return direct
            guess = self._guess(seen, direct)
            future = self.members.draw(latents, guess, seeds, first // self.groups.out_steps)
            return self._inflated(self._member(latents, direct, guess, future), direct)

        return rollout(one_pass, x, steps, None, self.bounded)

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The direct forecast, and the terms of the VAE or, with a generator, its own."""
        return (
            self._train_vae(batch, anchor) if self.members is None else self._train_members(self.members, batch, anchor)
        )

    def latents(self, batch: Batch) -> Tensor:
        """The means of the latents of windows and their targets, [B, G, z, h, w]."""
        return self.vae.encode(self._clip(batch))[0]

    def reconstruct(self, batch: Batch) -> Tensor:
        """Windows and the first τ frames of their targets, decoded from their latents: [B, T + τ, C, H, W]."""
        frames = self.vae.decode_all(self.latents(batch)) + self.vae.mean
        start = self.groups.front
        return frames[:, start : start + self.groups.in_steps + self.groups.out_steps]

    @torch.no_grad()
    def measure(self, windows: Iterable[tuple[Batch, Anchoring | None]]) -> None:
        """The mean of each cell or, with a generator, the statistics of the latents; those of a file stay."""
        if self.members is None and not self.vae.measured:
            self.vae.mean.copy_(_mean_of_cells(batch for batch, _ in windows))
            self.vae.measured.fill_(True)
        if self.members is not None and not self.members.measured:
            self.members.measure(self._futures(*window)[1:] for window in windows)

    def _encoded(self, observed: Tensor) -> Tensor:
        """[B, T, C, H, W] → the means of its latents, [B, g_o, z, h, w]."""
        return self.vae.encode(self.groups.before(observed))[0]

    def _anchor_frames(self, seen: Tensor, anchor: Anchoring | None, first: int, remaining: int) -> Tensor:
        """What frames decoded from tokens are added to, [B, τ, C, H, W]: the anchor's frames, or the mean of the cells."""
        if anchor is None:
            return self.vae.mean.expand(len(seen), self.groups.out_steps, -1, -1, -1)
        frames = anchor(seen, first, min(self.groups.out_steps, remaining))
        return self.groups.after(frames)[:, : self.groups.out_steps]

    def _direct(self, observed: Tensor, base: Tensor) -> Tensor:
        """The forecast from latents of the observed frames alone, or that of the guide: [B, τ, C, H, W]."""
        if self.guided:
            return base
        nothing = torch.zeros_like(observed[:, :1]).expand(-1, self.groups.following, -1, -1, -1)
        keep = torch.full_like(observed[:, 0, 0, 0, 0], self.groups.observed, dtype=torch.int64)
        filled = self.vae.fill(torch.cat([observed, nothing], dim=1), keep)
        return base + self._ahead(self.vae.decode(filled))

    def _ahead(self, clip: Tensor) -> Tensor:
        """The frames to forecast of a clip in whole groups: [B, 1 + p·(G − 1), C, H, W] → [B, τ, C, H, W]."""
        start = self.groups.front + self.groups.in_steps
        return clip[:, start : start + self.groups.out_steps]

    def _member(self, observed: Tensor, direct: Tensor, guess: Tensor | None, future: Tensor) -> Tensor:
        """The frames of a drawn future [B, g_f, z, h, w] behind the observed latents: [B, τ, C, H, W].

        With a guess they are the direct forecast and the difference of two decodings, which share the bottleneck's error.
        """
        frames = self._ahead(self.vae.decode_all(torch.cat([observed, future], dim=1)))
        if guess is None:
            return self.vae.mean + frames
        return direct + (frames - self._ahead(self.vae.decode_all(torch.cat([observed, guess], dim=1))))

    def _inflated(self, member: Tensor, direct: Tensor) -> Tensor:
        """A member that departs further from the direct forecast, which does not depend on the other members."""
        if self.inflation is None:
            return member
        return direct + self.inflation[:, None, None, None] * (member - direct)

    def _guess(self, seen: Tensor, direct: Tensor) -> Tensor | None:
        """The latents of the direct forecast, [B, g_f, z, h, w]; None if members do not depart from it."""
        if self.latent.guess == "none":
            return None
        return self.vae.encode(self.groups.clip(seen, direct))[0][:, self.groups.observed :]

    def _train_vae(self, batch: Batch, anchor: Anchoring | None) -> tuple[Tensor, Terms]:
        """One encoding and two decodings: of the forecast, and of windows whose latents are dropped at random."""
        base = self._anchor_frames(batch.observed, anchor, 0, batch.steps)
        clip = Clip(self._clip(batch), objective.weight_of(self.groups, self._known(batch), base.device), base)
        stage = place(self.parts, batch.progress)[0] if self.parts else objective.CLIPS
        with torch.set_grad_enabled(stage == objective.CLIPS and torch.is_grad_enabled()):
            encoded = self.vae.encode(clip.frames)
        with torch.set_grad_enabled(encoded[0].requires_grad and self.latent.drop != "none"):
            direct = self._direct(encoded[0][:, : self.groups.observed], base)
            if batch.steps > self.groups.out_steps:
                direct = self(batch.observed, batch.steps, anchor)
        return direct[:, : batch.steps], objective.STAGES[stage](self.latent, self.vae, clip, encoded)

    def _train_members(self, members: Members, batch: Batch, anchor: Anchoring | None) -> tuple[Tensor, Terms]:
        """The direct forecast, which is not trained, and the loss of the generator."""
        with torch.no_grad():
            kept = self.keep(batch, anchor) if batch.kept is None else batch.kept
        shapes = [target_of(batch).shape[1:], (self.groups.total, self.latent.channels, *self.vae.size)]
        sizes = [prod(shape) for shape in shapes]
        direct, latents, guess = kept.split((*sizes, kept.shape[1] - sum(sizes)), dim=1)
        latents = latents.unflatten(1, shapes[1])
        loss = members.loss(latents, guess.unflatten(1, (-1, *shapes[1][1:])) if guess.numel() else None)
        return direct.unflatten(1, shapes[0]), {f"{self.latent.generator}_loss": loss}

    def keep(self, batch: Batch, anchor: Anchoring | None = None) -> Tensor:
        """See `Predictor.keep`: the direct forecast, the latents of the window and those of the guess, side by side."""
        direct, latents, guess = self._futures(batch, anchor)
        if batch.steps > self.groups.out_steps:
            direct = self(batch.observed, batch.steps, anchor)
        return torch.cat([part.flatten(1) for part in (direct, latents, guess) if part is not None], dim=1)

    def _futures(self, batch: Batch, anchor: Anchoring | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The direct forecast of training windows, their latents [B, G, z, h, w], and the guess for their future."""
        latents = self.latents(batch)
        base = self._anchor_frames(batch.observed, anchor, 0, batch.steps)
        direct = self._direct(latents[:, : self.groups.observed], base)
        return direct, latents, self._guess(batch.observed, direct)

    def _clip(self, batch: Batch) -> Tensor:
        """Observed and the first τ following frames in whole groups; the last observed frame where values are missing."""
        target = target_of(batch)
        if batch.known is not None:
            last = batch.observed[:, -1:].expand_as(target)
            target = torch.where(batch.known[:, batch.observed.shape[1] :], target, last)
        return self.groups.clip(batch.observed, target[:, : self.groups.out_steps])

    def _known(self, batch: Batch) -> Tensor | None:
        return None if batch.known is None else batch.known[:, : self.groups.in_steps + self.groups.out_steps]


def _mean_of_cells(batches: Iterable[Batch]) -> Tensor:
    """The mean over the known values of windows, [C, H, W]; 0 in cells without any."""
    total = count = torch.zeros(())
    for batch in batches:
        frames = torch.cat([batch.observed, target_of(batch)], dim=1)
        weight = torch.ones_like(frames) if batch.known is None else batch.known.to(frames.dtype)
        total, count = total + (weight * frames).sum((0, 1)).cpu(), count + weight.sum((0, 1)).cpu()
    return total / count.clamp_min(1)
