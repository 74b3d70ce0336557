"""Linear probes of a latent space: what a regression reads from the latents, beside what it reads from the pixels under them.

A probe that is linear cannot hide what the latents lack by learning it, and costs seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli.errors import TimeError, UsageError
from pdr_cli.inference.model import Model
from pdr_cli.models.anomalies import Space
from pdr_cli.models.interfaces import Batch, target_of
from pdr_cli.models.layers import pad_to_multiple
from pdr_cli.models.motion import flow_between
from pdr_cli.verification import forecasters, sections, setting, task
from pdr_cli.verification.latents import AT_ONCE, MOST, Latents, solved
from pdr_cli.verification.task import Task

MOTION = 2  # channels of a flow, before those of the frame


class Cells(NamedTuple):
    """The cells of windows on the grid of the latents, P of them; each has m x m pixels.

    Args:
        latents: of the last observed group, of 3 x 3 cells, [P, 9·z].
        pixels: of the frames of that group, of 3 x 3 cells, less the mean of their place, [P, 9·m²·n·C].
        truth: flow to the next frame, and that frame less the mean of its place, of the cell's pixels, [P, (2 + C)·m²].
        whole: whether no pixel of the next frame is missing, [P].
    """

    latents: Tensor
    pixels: Tensor
    truth: Tensor
    whole: Tensor


class Probe:
    """The probes of one model, fitted to the windows of its training that the data hold, or else to half of those scored.

    Args:
        model: with latents.
        chosen: whose windows are scored.

    Raises:
        UsageError: the model has no latents.
    """

    def __init__(self, model: Model, chosen: Task) -> None:
        self.model, self.latents = model, Latents(model)
        self.vae, self.groups = self.latents.predictor.vae, self.latents.predictor.groups
        self.scale = setting.channel_scale(chosen.truth, chosen.first)[:, None, None]
        self.fitted_to, fitted, scored = _parts(model, chosen)
        self.fitted, self.scored = (dataclasses.replace(chosen, windows=w.spread(MOST)) for w in (fitted, scored))

    def section(self) -> sections.Probe:
        """The section of the document."""
        readers = {"latents": Regression(), "pixels": Regression()}
        with torch.inference_mode():
            for batch in self._batches(self.fitted):
                cells = self._cells(batch)
                for name, reader in readers.items():
                    reader.add(getattr(cells, name)[cells.whole], cells.truth[cells.whole])
            reconstruction = self.latents.reconstruction(self._batches(self.scored), self.scale)
            motion, following = self._errors(readers)
        counts = len(self.fitted.windows), len(self.scored.windows)
        return sections.Probe(reconstruction, motion, following, self.fitted_to, *counts)

    def _errors(self, readers: dict[str, Regression]) -> tuple[sections.Reading, sections.Reading]:
        """Mean end-point errors of the flow, and RMSE of the next frame: by each regression, and without any."""
        weights = {name: reader.solve() for name, reader in readers.items()}
        sums = {name: np.zeros(4) for name in (*weights, "without")}
        for batch in self._batches(self.scored):
            cells = self._cells(batch)
            flow, _ = self._frames(cells.truth, len(batch.observed))
            true, known = self._data(target_of(batch)[:, 0], batch), _known(batch)
            for name, total in sums.items():
                if name == "without":
                    found, made = torch.zeros_like(flow), batch.observed[:, -1]
                else:
                    coefficients, offset = weights[name]
                    found, made = self._frames(getattr(cells, name) @ coefficients + offset, len(flow))
                    made = self._outside(made.to(batch.observed) + self.vae.mean, batch)
                distance = (found - flow).norm(dim=1)[known.all(dim=1)]
                error = ((self._data(made, batch) - true) / self.scale)[known.numpy()].astype(np.float64)
                total += float(distance.sum()), distance.numel(), float((error**2).sum()), error.size
        motion = {name: s[0] / max(s[1], 1) for name, s in sums.items()}
        return sections.Reading(**motion), sections.Reading(
            **{n: (s[2] / max(s[3], 1)) ** 0.5 for n, s in sums.items()}
        )

    def _batches(self, part: Task) -> Iterator[Batch]:
        """Windows with their targets in network units, and whether their values are known."""
        model, read = self.model, forecasters.inputs_of(self.model, part.series)
        turn, encoding = forecasters.orientation(model, part.truth), model.encoding()
        for start in range(0, len(part.windows), AT_ONCE):
            request, truth = part.batch(np.arange(start, min(start + AT_ONCE, len(part.windows))))
            history, context = read(request)
            following = turn.apply(truth)[:, : self.groups.out_steps]
            seen = turn.apply(request.observed)[:, -history.shape[1] :]
            known = torch.from_numpy(np.isfinite(np.concatenate([seen, following], axis=1)))
            batch = model.batch(history, following.shape[1], context)
            yield batch._replace(target=encoding.target(following, model.device), known=known.to(model.device))

    def _cells(self, batch: Batch) -> Cells:
        """The cells of a batch in network units."""
        inside = Space(batch, self.model.network.anomalies).batch()
        latents = self.latents.predictor.latents(inside)[:, self.groups.observed - 1]
        last = inside.observed[:, -min(self.groups.size, self.groups.in_steps) :] - self.vae.mean
        following = target_of(inside)[:, 0]
        flow = flow_between(batch.observed[:, -1], target_of(batch)[:, 0])
        whole = self._unfolded((~_known(batch)).float(), 0).sum(dim=1) == 0
        return Cells(
            _around(latents, 1, 1),
            self._unfolded(last.flatten(1, 2), 1),
            self._unfolded(torch.cat([flow, following - self.vae.mean], dim=1), 0),
            whole,
        )

    def _unfolded(self, frames: Tensor, reach: int) -> Tensor:
        """The pixels of each cell of the latents' grid and of those up to `reach` cells from it: [B, c, H, W] → [P, K]."""
        return _around(pad_to_multiple(frames, self.vae.multiple, self.vae.frames.periodic), self.vae.multiple, reach)

    def _frames(self, rows: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Flow [B, 2, H, W] and frames [B, C, H, W] of the pixels of cells, [P, (2 + C)·m²]."""
        (h, w), (H, W), m = self.vae.size, self.vae.frames.size, self.vae.multiple
        columns = rows.unflatten(0, (batch, -1)).transpose(1, 2)
        made = nn.functional.fold(columns, (h * m, w * m), m, stride=m)[..., :H, :W]
        return made[:, :MOTION], made[:, MOTION:]

    def _outside(self, frames: Tensor, batch: Batch) -> Tensor:
        """Next frames [B, C, H, W] of the space of the predictor in that of the network."""
        return Space(batch, self.model.network.anomalies).out(frames[:, None], batch.observed.shape[1])[:, 0]

    def _data(self, frames: Tensor, batch: Batch) -> np.ndarray:
        """Frames [B, C, H, W] in data units."""
        return self.model.encoding().to_data(frames[:, None])[:, 0]


class Regression:
    """A ridge regression from running sums, of features in units of their standard deviation."""

    def __init__(self) -> None:
        self.products: Tensor | float = 0.0  # of features, targets and 1, summed over rows
        self.features = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Count in rows: [P, K] and [P, N]."""
        rows = torch.cat([features, targets, torch.ones_like(targets[:, :1])], dim=1)
        self.products, self.features = self.products + rows.T @ rows, features.shape[1]

    def solve(self) -> tuple[Tensor, Tensor]:
        """Coefficients [K, N] and offsets [N].

        Raises:
            UsageError: no row was counted.
        """
        if not isinstance(self.products, Tensor) or not self.products[-1, -1]:
            raise UsageError(
                "--metrics probe: every cell lacks values in the windows that are fitted", way_out="leave it out"
            )
        K, moments = self.features, self.products / self.products[-1, -1]
        mean = moments[-1, :-1]
        covariance = moments[:-1, :-1] - mean[:, None] * mean
        spread = covariance.diagonal()[:K].clamp_min(torch.finfo(mean.dtype).tiny).sqrt()[:, None]
        scaled = solved(covariance[:K, :K] / (spread * spread.T), covariance[:K, K:] / spread, 1) / spread
        return scaled, mean[K:] - mean[:K] @ scaled


def _around(frames: Tensor, side: int, reach: int) -> Tensor:
    """The values of each cell of side x side and of those up to `reach` cells from it, 0 beyond the border: [P, K]."""
    parts = nn.functional.unfold(frames, side * (2 * reach + 1), padding=side * reach, stride=side)
    return parts.transpose(1, 2).flatten(0, 1).cpu().double()


def _known(batch: Batch) -> Tensor:
    """Whether the values of the next frame are known, [B, C, H, W], on the CPU."""
    known = batch.known
    if known is None:
        raise ValueError("the batch does not say what is known")
    return known[:, batch.observed.shape[1]].cpu()


Fitted = Literal["training windows", "first half"]


def _parts(model: Model, chosen: Task) -> tuple[Fitted, task.Windows, task.Windows]:
    """What probes are fitted to, its windows, and those that they are scored on, which share no frame with them.

    Raises:
        UsageError: too few windows for two halves.
    """
    scored = chosen.windows
    if chosen.split in ("test", "val"):
        try:
            found = task.build({model.label: model}, {}, chosen.series, "train", scored.out_steps)
            return "training windows", found.windows, scored
        except TimeError:  # other data than those of the training
            pass
    places = scored.places[np.lexsort(scored.places.T[::-1])]
    number, start = places[(len(places) - 1) // 2]
    end = start + scored.in_steps + scored.out_steps
    before = (scored.places[:, 0] < number) | ((scored.places[:, 0] == number) & (scored.places[:, 1] <= start))
    after = (scored.places[:, 0] > number) | ((scored.places[:, 0] == number) & (scored.places[:, 1] >= end))
    if not after.any():
        way_out = "give more data, or leave it out"
        raise UsageError(
            f"--metrics probe: {len(places)} windows, whose second half overlaps the first", way_out=way_out
        )
    return "first half", scored.only(before), scored.only(after)
