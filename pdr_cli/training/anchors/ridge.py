"""Fits the ridge anchor from running sums over the training windows, with the choices made by cross-validation in time.

The windows are divided into blocks of time. Each block is forecast by coefficients fitted to the others, which chooses the
regularisation of each form and the weights of the blend, and gives the anchors that a network is trained on.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdr_cli.models.anchors.ridge import Inputs, Ridge, amplitudes, local_features, pooled_features
from pdr_cli.models.interfaces import Batch, Frames, target_of

FOLDS = 3
FEW = 30  # windows; with fewer nothing is cross-validated
PENALTIES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)  # over the mean variance of the features
LOCAL_PENALTIES = (0.01, 0.05, 0.2, 1.0)
RADII = (2, 1, 0)
MOST_PATTERNS = 150
CHOSEN_FROM = 300  # cells from which the penalty of the local form is chosen
SUMS_BYTES = 400e6  # of the local form's sums, all folds
STORED_BYTES = 2.4e6  # of the local form's coefficients, and of the patterns with theirs
FITTED = 6000  # windows that coefficients are fitted to, at most, evenly spaced
SAMPLED = 1500  # windows that patterns and blend are made from, at most
SAMPLE_BYTES = 300e6  # of the frames that patterns are made from
AT_ONCE, BATCH_BYTES = 128, 200e6  # windows of a batch, and bytes of a batch with its departures

Sums = dict[int, tuple[Any, Any]]  # of each block: products of features, and of features and targets
Batches = Callable[[np.ndarray], Batch]  # numbers of training windows -> their batch, on the CPU


@dataclass(frozen=True)
class Fitted:
    """A fitted ridge, and those of each block of time without its own data.

    Args:
        anchor: of all training windows.
        folds: one for each block; empty where there are too few windows.
        fold_of: the block of each training window, [n].
        about: in words.
    """

    anchor: Ridge
    folds: list[Ridge]
    fold_of: np.ndarray
    about: str


@dataclass(frozen=True)
class Job:
    """What a fit reads: the training windows, in batches, and their blocks of time.

    Args:
        frames: of the network.
        batches: of training windows.
        fold_of: block of each window, [n].
        interior: windows that share no frame with another block, [n].
        blank: a ridge with its units and its first guess, and no form.
    """

    frames: Frames
    batches: Batches
    fold_of: np.ndarray
    interior: np.ndarray
    blank: Ridge

    def over(self, windows: np.ndarray) -> Iterator[tuple[int, Inputs, Tensor, Tensor]]:
        """Block, inputs, departures [B, τ, C, H, W] to forecast and their weights, of batches within one block."""
        for fold in np.unique(self.fold_of[windows]):
            mine = windows[self.fold_of[windows] == fold]
            for some in np.array_split(mine, -(-len(mine) // at_once(self.frames))):
                batch = self.batches(some)
                inputs = self.blank.inputs(batch.observed, batch.context)
                departures = (target_of(batch) - inputs.following) / inputs.unit
                known = None if batch.known is None else batch.known[:, batch.observed.shape[1] :]
                weight = torch.ones_like(departures) if known is None else known.to(departures.dtype)
                yield int(fold), inputs, (departures - self.blank.guess(inputs)) * weight, weight

    @property
    def cells(self) -> int:
        """C·H·W."""
        return self.frames.channels * self.frames.size[0] * self.frames.size[1]

    def fitted(self) -> np.ndarray:
        """Numbers of the windows that coefficients are fitted to."""
        sample = self.sample(FITTED)
        return sample[self.interior[sample]]

    def sample(self, at_most: int) -> np.ndarray:
        """Numbers of at most so many windows, evenly spaced."""
        n = len(self.fold_of)
        return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))


def at_once(frames: Frames) -> int:
    """Windows of a batch, which takes about `BATCH_BYTES` with its departures."""
    cells = frames.channels * frames.size[0] * frames.size[1]
    return max(1, min(AT_ONCE, int(BATCH_BYTES / (12 * (frames.in_steps + frames.out_steps) * cells))))


def fit(frames: Frames, batches: Batches, windows: int, blank: Ridge) -> Fitted:
    """Fit the ridge to training windows.

    Args:
        frames: of the network.
        batches: of training windows.
        windows: their number.
        blank: a ridge with its units set.
    """
    overlap = frames.in_steps + frames.out_steps - 1
    fold_of = np.arange(windows) * FOLDS // max(windows, 1)
    if windows < max(FEW, 2 * FOLDS * overlap):
        blank.share = damping(Job(frames, batches, 0 * fold_of, np.ones(windows, bool), blank))
        return Fitted(blank, [], 0 * fold_of, f"damped anomaly persistence alone, because {windows} windows are few")
    edges = np.flatnonzero(np.diff(fold_of)) + 1
    near = np.abs(np.arange(windows)[:, None] - edges + 0.5).min(axis=1) < overlap / 2 + 0.5
    job = Job(frames, batches, fold_of, ~near, blank)
    job.blank.share = damping(job)
    forms = [form for form in (fit_pooled(job), fit_local(job), fit_patterns(job)) if form is not None]
    ridges = [_assembled(job, forms, fold) for fold in (*range(FOLDS), None)]
    weights, gain = blend(job, ridges[:FOLDS])
    for ridge in ridges:
        ridge.weights.copy_(weights)
    return Fitted(ridges[-1], ridges[:FOLDS], fold_of, _about(weights, forms, gain))


@dataclass
class FormFit:
    """The coefficients of one form, by buffer: of each block without its data, and of all data (the last).

    Args:
        name: of the form.
        buffers: of each block and of all.
    """

    name: str
    buffers: list[dict[str, Tensor]]


def _assembled(job: Job, forms: list[FormFit], fold: int | None) -> Ridge:
    ridge = copy.deepcopy(job.blank)
    for form in forms:
        for name, value in form.buffers[FOLDS if fold is None else fold].items():
            setattr(ridge, name, value)
    return ridge


def damping(job: Job) -> Tensor:
    """The share of the last departure that each lead keeps: [τ, C]."""
    return share_of((inputs.departures[:, -1:] * weight, y) for _, inputs, y, weight in job.over(job.sample(FITTED)))


def share_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The share of x in y, [B, τ, C, H, W] each, by least squares and between 0 and 1: [τ, C]; 0 where a value is missing."""
    products = squares = torch.zeros((), dtype=torch.float64)
    for x, y in pairs:
        x, y = x.double(), y.double()
        products, squares = products + (x * y).sum((0, 3, 4)), squares + (x * x).sum((0, 3, 4))
    return (products / squares.clamp_min(1e-12)).clamp(0, 1).float()


def fit_pooled(job: Job) -> FormFit:
    """Sums [folds, τ, C, K, K] over windows and cells."""
    sums: Sums = {}
    for fold, inputs, y, weight in job.over(job.fitted()):
        grams, products = [], []
        y, weight = y * inputs.unit, weight * inputs.unit  # the least squared error in the data's own units
        for lead, x in enumerate(pooled_features(inputs)):
            x = (x * weight[:, lead, :, None]).transpose(0, 1).transpose(1, 2).flatten(2)  # [C, K, B·H·W]
            grams.append(x @ x.transpose(1, 2))
            products.append(x @ y[:, lead].transpose(0, 1).flatten(1)[..., None])
        _add(sums, fold, torch.stack(grams), torch.stack(products))
    solved = _cross_validated(*_stacked(sums), PENALTIES)
    return FormFit("pooled", [{"pooled": s[..., 0].float()} for s in solved])


def fit_local(job: Job) -> FormFit | None:
    """Sums [folds, C·H·W, K, K] over windows; None if they or the coefficients are too large at any radius."""
    frames, leads = job.frames, job.frames.out_steps
    radius = next((r for r in RADII if _affordable(job, frames.in_steps * (2 * r + 1) ** 2)), None)
    if radius is None:
        return None
    K = frames.in_steps * (2 * radius + 1) ** 2
    xx, xy = (torch.zeros(FOLDS, job.cells, K, columns) for columns in (K, leads))
    for fold, inputs, y, _ in job.over(job.fitted()):
        x = local_features(inputs, radius, frames.periodic).flatten(0, 1).mT.contiguous()  # [C·H·W, B, K]
        y = y.flatten(2).permute(2, 0, 1).contiguous()  # [C·H·W, B, τ]
        xx[fold].baddbmm_(x.transpose(1, 2), x)
        xy[fold].baddbmm_(x.transpose(1, 2), y)
    solved = _cross_validated(xx, xy, LOCAL_PENALTIES)
    half = [s.unflatten(0, (frames.channels, -1)).half() for s in solved]
    return FormFit("local", [{"local": s} for s in half])


def _affordable(job: Job, features: int) -> bool:
    sums, stored = FOLDS * job.cells * features**2, job.frames.out_steps * job.cells * features
    return 4 * sums <= SUMS_BYTES and 2 * stored <= STORED_BYTES


def fit_patterns(job: Job) -> FormFit | None:
    """Sums [folds, T·E, T·E] over windows; None where the data have too few patterns."""
    patterns = leading(job)
    if len(patterns) < 2:
        return None
    half = patterns.half()
    patterns = half.float()
    sums: Sums = {}
    for fold, inputs, y, _ in job.over(job.fitted()):
        x, z = amplitudes(inputs.departures, patterns).flatten(1), amplitudes(y, patterns).flatten(1)
        _add(sums, fold, x.T @ x, x.T @ z)
    solved = _cross_validated(*_stacked(sums), PENALTIES)
    return FormFit("patterns", [{"patterns": half, "scores": s.float()} for s in solved])


def _add(sums: Sums, fold: int, xx: Tensor, xy: Tensor) -> None:
    before = sums.get(fold, (0.0, 0.0))
    sums[fold] = (before[0] + xx.double(), before[1] + xy.double())


def _stacked(sums: Sums) -> tuple[Tensor, Tensor]:
    """Sums of all blocks, [folds, ...] each."""
    xx, xy = zip(*(sums[fold] for fold in sorted(sums)), strict=True)
    return torch.stack(xx), torch.stack(xy)


def storable(frames: Frames) -> int:
    """E, the patterns that take STORED_BYTES with their coefficients: 2 C·H·W·E + 4 T·τ·E² bytes."""
    pattern, pair = 2 * frames.channels * frames.size[0] * frames.size[1], 4 * frames.in_steps * frames.out_steps
    return int((math.sqrt(pattern**2 + 4 * pair * STORED_BYTES) - pattern) / (2 * pair))


def leading(job: Job) -> Tensor:
    """The leading patterns of the departures, orthonormal: [E, C·H·W]."""
    sample = job.sample(min(SAMPLED, int(SAMPLE_BYTES / (4 * job.cells)) + 2))
    frames = torch.cat([inputs.departures[:, -1].flatten(1) for _, inputs, _, _ in job.over(sample)])
    most = min(MOST_PATTERNS, storable(job.frames), len(frames) // 6, job.cells)
    if most < 2:
        return frames[:0]
    values, vectors = torch.linalg.eigh((frames @ frames.T).double())
    kept = values.flip(0)[:most] > 1e-9 * values[-1]
    patterns = vectors.flip(1)[:, :most][:, kept].T.float() @ frames
    return patterns / patterns.norm(dim=1, keepdim=True)


def _cross_validated(xx: Tensor, xy: Tensor, penalties: tuple[float, ...]) -> list[Tensor]:
    """Coefficients [..., K, n] without each block, then of all, with the penalty of the least squared error on the blocks.

    Args:
        xx: sums of products of features, [folds, ..., K, K].
        xy: of features and targets, [folds, ..., K, n].
        penalties: to choose from.
    """
    penalty = _chosen(xx, xy, penalties)
    whole = xx.sum(0), xy.sum(0)
    held = [solve(whole[0] - mine, whole[1] - target, penalty) for mine, target in zip(xx, xy, strict=True)]
    return [*held, solve(*whole, penalty)]


def _chosen(xx: Tensor, xy: Tensor, penalties: tuple[float, ...]) -> float:
    """The penalty of the least squared error on blocks that were left out; of many cells, of evenly spaced ones."""
    if xx.ndim == 4:
        some = torch.linspace(0, xx.shape[1] - 1, min(xx.shape[1], CHOSEN_FROM)).round().long()
        xx, xy = xx[:, some], xy[:, some]
    whole = xx.sum(0), xy.sum(0)
    explained = [
        sum(
            _explained(mine, target, solve(whole[0] - mine, whole[1] - target, penalty))
            for mine, target in zip(xx, xy, strict=True)
        )
        for penalty in penalties
    ]
    return penalties[int(np.argmax(explained))]


def _explained(xx: Tensor, xy: Tensor, w: Tensor) -> float:
    """Σ y² − Σ (y − xw)²."""
    return float((2 * w * xy - w * (xx @ w)).sum())


def solve(xx: Tensor, xy: Tensor, penalty: float) -> Tensor:
    """Ridge coefficients [..., K, n]; the penalty is a share of the mean diagonal."""
    scale = xx.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(1e-9)
    eye = torch.eye(xx.shape[-1], dtype=xx.dtype)
    solved: Tensor = torch.cholesky_solve(xy, torch.linalg.cholesky(xx + penalty * scale * eye))
    return solved


def blend(job: Job, ridges: list[Ridge]) -> tuple[Tensor, float]:
    """Weights of the forms for each lead, none negative, by the least squared error on blocks that were left out: [τ, 3].

    The second result is the share by which they reduce the RMSE of the first guess there.
    """
    leads = job.frames.out_steps
    gram, products = torch.zeros(leads, 3, 3, dtype=torch.float64), torch.zeros(leads, 3, dtype=torch.float64)
    guess = 0.0
    for fold, inputs, y, weight in job.over(job.sample(SAMPLED)):
        scale = inputs.unit * weight
        made = torch.stack([torch.zeros_like(y) if f is None else f(inputs) * scale for f in ridges[fold].forms()], 2)
        made = made.transpose(0, 1).transpose(1, 2).flatten(2).double()  # [τ, 3, B·C·H·W]
        target = (y * scale).transpose(0, 1).flatten(1).double()[..., None]
        gram += made @ made.transpose(1, 2)
        products += (made @ target)[..., 0]
        guess += float(target.square().sum())
    weights = torch.stack([_not_negative(gram[t], products[t]) for t in range(leads)])
    left = guess + float((weights[:, None] @ gram @ weights[..., None]).sum() - 2 * (weights * products).sum())
    return weights.float(), 1 - max(left / max(guess, 1e-12), 0.0) ** 0.5


def _not_negative(gram: Tensor, products: Tensor) -> Tensor:
    """Non-negative least squares of three weights: the best of all subsets."""
    best, least = torch.zeros(3, dtype=gram.dtype), 0.0
    present = [i for i in range(3) if gram[i, i] > 0]
    for count in range(1, len(present) + 1):
        for chosen in itertools.combinations(present, count):
            rows = list(chosen)
            inside = gram[rows][:, rows]
            w = torch.linalg.solve(inside + 1e-6 * inside.diagonal().mean() * torch.eye(count), products[rows])
            error = float(w @ inside @ w - 2 * w @ products[rows])
            if (w >= 0).all() and error < least:
                best, least = torch.zeros(3, dtype=gram.dtype), error
                best[rows] = w
    return best


def _about(weights: Tensor, forms: list[FormFit], gain: float) -> str:
    order = {"pooled": 0, "local": 1, "patterns": 2}
    shares = weights.mean(0)
    parts = ", ".join(f"{form.name} {float(shares[order[form.name]]):.2f}" for form in forms)
    return f"{100 * gain:.1f} % below damped anomaly persistence in cross-validation (mean weights: {parts})"
