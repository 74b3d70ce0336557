"""The ridge's fit: recovers planted rules, chooses by blocks of time it has not seen, and keeps within its limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pdr_cli.models.anchors.ridge import Ridge
from pdr_cli.models.interfaces import Batch, Context, Frames
from pdr_cli.training.anchors import ridge
from pdr_cli.training.anchors.ridge import FOLDS, Fitted, fit

T, LEADS = 2, 2
WINDOWS = 240


def field(steps: int, channels: int = 1, size: tuple[int, int] = (6, 7), seed: int = 0) -> torch.Tensor:
    """A field that moves a column a step, fades, and is renewed by noise: [steps, C, H, W]."""
    random = torch.Generator().manual_seed(seed)
    frames = [torch.randn((channels, *size), generator=random)]
    for _ in range(steps - 1):
        frames.append(0.9 * frames[-1].roll(1, -1) + 0.4 * torch.randn((channels, *size), generator=random))
    return torch.stack(frames)


def batches(frames: torch.Tensor, normal: float = 0.0) -> Callable[[np.ndarray], Batch]:
    """The windows of frames [steps, C, H, W] whose climatology is constant."""

    def batch(which: np.ndarray) -> Batch:
        cut = torch.stack([frames[i : i + T + LEADS] for i in which])
        return Batch(cut[:, :T], LEADS, cut[:, T:], normal=torch.full_like(cut, normal))

    return batch


def fitted(frames: torch.Tensor, windows: int = WINDOWS, periodic: bool = True) -> Fitted:
    shape = Frames(T, frames.shape[1], (frames.shape[2], frames.shape[3]), periodic, out_steps=LEADS)
    return fit(shape, batches(frames), windows, Ridge(shape))


def errors(anchor: Ridge, frames: torch.Tensor, which: np.ndarray) -> float:
    batch = batches(frames)(which)
    return float((anchor(batch.observed, LEADS, batch.context) - batch.target).square().mean().sqrt())


def test_motion_is_found_and_forecasts_unseen_time_as_well_as_can_be() -> None:
    frames = field(600)
    found = fitted(frames)
    later = np.arange(WINDOWS + 10, 590)
    possible = np.sqrt((0.16 + (0.16 + 0.81 * 0.16)) / 2)  # the noise of one step, and of two
    assert errors(found.anchor, frames, later) == pytest.approx(possible, rel=0.12)
    damped = fit(found.anchor.frames, batches(frames), 10, Ridge(found.anchor.frames))  # few windows
    assert errors(found.anchor, frames, later) < 0.6 * errors(damped.anchor, frames, later)
    assert "below damped anomaly persistence" in found.about


def test_noise_is_not_forecast() -> None:
    frames = torch.randn((300, 1, 6, 7), generator=torch.Generator().manual_seed(1))
    found = fitted(frames)
    assert errors(found.anchor, frames, np.arange(250, 290)) == pytest.approx(1, abs=0.05)


def test_windows_are_forecast_by_an_anchor_that_has_not_seen_their_time() -> None:
    # Only in the last block does a field turn its sign: an anchor of the others forecasts the opposite there.
    frames = field(WINDOWS + 10)
    turned = 2 * WINDOWS // 3 + T
    for step in range(turned, len(frames)):
        frames[step] = -0.9 * frames[step - 1] + 0.1 * frames[step]
    found = fitted(frames)
    block = np.arange(turned + 4, WINDOWS)
    assert (found.fold_of[block] == FOLDS - 1).all()
    without, within = (errors(anchor, frames, block) for anchor in (found.folds[-1], found.anchor))
    assert without > 1.2 * within


def test_few_windows_give_damped_persistence() -> None:
    frames = field(40).mean(-1, keepdim=True).expand(-1, -1, -1, 7)  # what moves in the rows does not show
    found = fitted(frames, 20)
    assert (found.folds, found.anchor.pooled.numel(), "20 windows are few" in found.about) == ([], 0, True)
    assert 0 < float(found.anchor.share.min()) <= float(found.anchor.share.max()) <= 1


def test_one_window_and_constant_cells_give_finite_numbers() -> None:
    frames = field(40)
    frames[:, :, 2, 3] = 0
    for windows in (1, 36):
        found = fitted(frames, windows)
        made = found.anchor(frames[None, :T], LEADS, Context(torch.zeros(1, T + LEADS, 1, 6, 7)))
        assert made.isfinite().all()


def test_missing_targets_count_in_no_sum() -> None:
    frames = field(300)
    shape = Frames(T, 1, (6, 7), True, out_steps=LEADS)
    plain = batches(frames)

    def holey(filled: float) -> Callable[[np.ndarray], Batch]:
        """Windows whose first rows are missing in the frames to forecast, filled with a multiple of the last frame."""

        def batch(which: np.ndarray) -> Batch:
            batch = plain(which)
            known = torch.ones(len(which), T + LEADS, 1, 6, 7, dtype=torch.bool)
            known[:, T:, :, :2] = False
            return batch._replace(
                target=torch.where(known[:, T:], batch.target, filled * batch.observed[:, -1:]), known=known
            )

        return batch

    found, other = (fit(shape, holey(filled), WINDOWS, Ridge(shape)).anchor for filled in (0.0, 50.0))
    assert all(torch.equal(a, b) for a, b in zip(found.buffers(), other.buffers(), strict=True))
    made = found(frames[None, 250 : 250 + T], LEADS, Context(torch.zeros(1, T + LEADS, 1, 6, 7)))
    assert float(found.share.max()) <= 1
    assert float(made.abs().max()) < 10


def test_batches_of_large_frames_are_small() -> None:
    small, large, huge = (
        Frames(4, C, size, out_steps=4) for C, size in ((1, (8, 8)), (4, (128, 256)), (70, (721, 1440)))
    )
    assert [ridge.at_once(frames) for frames in (small, large, huge)] == [ridge.AT_ONCE, 15, 1]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "STORED_BYTES", 2 * 42 * T * LEADS)  # one cell's own frames, and no pattern
    found = fitted(field(300))
    assert found.anchor.local.shape == (1, 42, T, LEADS)
    assert found.anchor.patterns.numel() <= 42 * 4
    monkeypatch.setattr(ridge, "SUMS_BYTES", 0.0)
    assert fitted(field(300)).anchor.local.numel() == 0


@pytest.mark.parametrize(("steps", "most"), [(1, 416), (12, 61)])
def test_the_coefficients_of_patterns_count_among_what_is_stored(steps: int, most: int) -> None:
    """Of 2048 cells in half precision and E patterns, 4096 E + 4 steps² E² is just below 2.4e6.

    With steps of 1 that is 4096 E + 4 E²; with 12, 4096 E + 576 E²: 61 patterns take 2.39 MB, 62 take 2.47 MB.
    """
    shape = Frames(steps, 1, (32, 64), out_steps=steps)
    found = ridge.storable(shape)
    assert found == most
    assert (
        4096 * found + 4 * steps**2 * found**2
        <= ridge.STORED_BYTES
        < 4096 * (found + 1) + 4 * steps**2 * (found + 1) ** 2
    )
