"""Distances of clips: none between halves of the same clips, large to clips whose frames are shuffled or still."""

import json
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.verification import clips
from pdr_cli.verification.studies import clip_flow
from tests.cli import pdr


def moving(count: int, steps: int = 5, size: int = 24, seed: int = 0) -> np.ndarray:
    """Clips of a blob that moves on a straight line, [count, steps, 1, size, size]."""
    random = np.random.default_rng(seed)
    start, speed = random.uniform(7, size - 7, (count, 2)), random.normal(0, 1, (count, 2))
    at = start[:, None] + speed[:, None] * np.arange(steps)[:, None]
    y, x = np.mgrid[:size, :size]
    apart = (y - at[..., 0, None, None]) ** 2 + (x - at[..., 1, None, None]) ** 2
    return np.exp(-apart / 18)[:, :, None].astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray, real: np.ndarray) -> float:
    found, of_real = (clips.features(x, clip_flow) for x in (other, real))
    return clips.distance(
        clips.standardised(clips.features(one, clip_flow), of_real), clips.standardised(found, of_real)
    )


def test_features_are_24_a_channel() -> None:
    made = moving(3)
    assert clips.features(made, clip_flow).shape == (3, 24)
    assert clips.features(np.concatenate([made, made], axis=2), clip_flow).shape == (3, 48)
    assert np.isfinite(clips.features(made[:, :1], clip_flow)).all()
    assert np.isfinite(clips.features(np.zeros_like(made), clip_flow)).all()


def test_halves_of_real_clips_are_near_and_disturbed_ones_are_far() -> None:
    real = moving(60)
    near = distance(real[::2], real[1::2], real)
    splits = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(60)
        splits.append(distance(real[order[::2]], real[order[1::2]], real))
    assert abs(near) < 3 * np.std(splits) + abs(np.mean(splits))
    shuffled = real[1::2][:, [3, 0, 4, 1, 2]]
    still = np.repeat(real[1::2][:, :1], 5, axis=1)
    for other in (shuffled, still):
        assert distance(real[::2], other, real) > 10 * max(np.std(splits), abs(near))


def test_the_distance_is_unbiased() -> None:
    random = np.random.default_rng(0)
    drawn = [clips.distance(*random.normal(size=(2, 6, 4))) for _ in range(2000)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn))
    a, b = random.normal(size=(5, 3)), random.normal(size=(7, 3)) + 1
    pairs = [((x @ y / 3 + 1) ** 3) for x in a for y in b]
    own = [np.mean([(x @ y / 3 + 1) ** 3 for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    assert clips.distance(a, b) == pytest.approx(sum(own) - 2 * np.mean(pairs))


def test_persistence_is_farther_from_real_clips_than_they_are(clip: Path, video_run: Path) -> None:
    arguments = ("--split", "all", "--against", "persistence", "--metrics", "psnr,clip_distance")
    result = pdr("evaluate", clip, "-m", video_run, *arguments, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["clip_distance"]
    assert set(found["distances"]) == {"run", "persistence"}
    assert found["distances"]["persistence"] > 10 * abs(found["real"])
    few = pdr("evaluate", clip, "-m", video_run, "--metrics", "psnr,clip_distance")
    assert (few.code, "windows without missing values" in few.last) == (2, True), few.err
