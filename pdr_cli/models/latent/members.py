"""Members: futures in the latent space of a VAE, drawn behind the latents of the observed frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdr_cli.models import noise
from pdr_cli.models.latent.generator import GENERATORS, Condition
from pdr_cli.models.latent.vae import Groups

if TYPE_CHECKING:
    from pdr_cli.optional_tables import LatentConfig


class Members(nn.Module):
    """A generator and the statistics of the latents, which it reads and draws in units of their standard deviation.

    With a guess it draws the future's departure from it. Latents are [B, g, z, h, w].

    Args:
        latent: the [latent] table.
        groups: observed and following.
        further: channels of what else the generator is given of each latent.
    """

    mean: Tensor  # [z, 1, 1], of the latents of training windows
    spread: Tensor  # [z, 1, 1], their standard deviation
    departure: Tensor  # [z, 1, 1], root mean square of what is drawn, over `spread`
    measured: Tensor

    def __init__(self, latent: LatentConfig, groups: Groups, further: int = 0) -> None:
        super().__init__()
        self.groups = groups
        self.generator = GENERATORS[latent.generator](latent, groups, further)
        for name, value in (("mean", 0.0), ("spread", 1.0), ("departure", 1.0)):
            self.register_buffer(name, torch.full((latent.channels, 1, 1), value))
        self.register_buffer("measured", torch.tensor(False))

    def draw(
        self, observed: Tensor, guess: Tensor | None, seeds: Tensor, draw: int, further: Tensor | None = None
    ) -> Tensor:
        """A future of each window by its seed and the number of the draw; `further`: see `Condition`."""
        start = noise.normal(seeds, draw, self.groups.following, *observed.shape[2:])
        departure = self.departure * self.generator.draw(start, self._condition(observed, guess, further))
        return (self.mean if guess is None else guess) + self.spread * departure

    def loss(self, latents: Tensor, guess: Tensor | None, further: Tensor | None = None) -> Tensor:
        """The generator's loss for windows whose G latents these are; `further`: see `Condition`."""
        observed, future = latents.split((self.groups.observed, self.groups.following), dim=1)
        departure = (future - (self.mean if guess is None else guess)) / (self.spread * self.departure)
        return self.generator.loss(departure, self._condition(observed, guess, further))

    def standard(self, latents: Tensor) -> Tensor:
        """Latents in units of their standard deviation, from their mean."""
        return (latents - self.mean) / self.spread

    def _condition(self, observed: Tensor, guess: Tensor | None, further: Tensor | None) -> Condition:
        return Condition(self.standard(observed), None if guess is None else self.standard(guess), further)

    def measure(self, windows: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Measure the statistics over the G latents of windows and the guesses for their futures."""
        latent, drawn = Moments(len(self.mean)), Moments(len(self.mean))
        for latents, guess in windows:
            latent.add(latents)
            if guess is not None:
                drawn.add(latents[:, self.groups.observed :] - guess)
        self.mean.copy_(latent.mean)
        self.spread.copy_(latent.spread)
        if drawn.count:
            self.departure.copy_((drawn.mean.square() + drawn.spread.square()).sqrt() / latent.spread)
        self.measured.fill_(True)


class Moments:
    """Means and standard deviations of the channels of latents, summed in double precision on the CPU."""

    def __init__(self, channels: int) -> None:
        self.count, self.sums = 0, torch.zeros(2, channels, dtype=torch.float64)

    def add(self, latents: Tensor) -> None:
        """Count in latents [B, g, z, h, w]."""
        values = latents.transpose(0, 2).flatten(1).double()
        self.count += values.shape[1]
        self.sums += torch.stack([values.sum(1), values.square().sum(1)]).cpu()

    @property
    def mean(self) -> Tensor:
        """[z, 1, 1]."""
        return (self.sums[0] / self.count)[:, None, None]

    @property
    def spread(self) -> Tensor:
        """[z, 1, 1]; not 0."""
        return (self.sums[1] / self.count - (self.sums[0] / self.count) ** 2).clamp_min(1e-12).sqrt()[:, None, None]
