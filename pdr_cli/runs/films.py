"""From a file of scenes to the tensors of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pdr_cli.data.formats.scenefile import SceneFile
from pdr_cli.data.scenes import WHITE, Scene
from pdr_cli.models.scenes.losses import Truth
from pdr_cli.splat.camera import Camera


class Films(NamedTuple):
    """Scenes as a network is given them, and frames of theirs to compare with.

    Args:
        video: of the first camera, 0 to 1, [B, T, 3, H, W].
        path: of the first camera, [B, T, 4, 4]; focal [B].
        cameras: of the frames, [B, F, 4, 4]; focal [B].
        truth: the frames.
        times: of the frames, from 0 to 1, F.
    """

    video: Tensor
    path: Camera
    cameras: Camera
    truth: Truth
    times: list[float]

    def rows(self, which: slice) -> Films:
        """Some of the scenes."""
        path, cameras = (
            Camera(camera.world_to_camera[which], torch.as_tensor(camera.focal)[which])
            for camera in (self.path, self.cameras)
        )
        return Films(self.video[which], path, cameras, Truth(*(x[which] for x in self.truth)), self.times)


@dataclass(frozen=True)
class SceneData:
    """The scenes of a run.

    Args:
        file: of all scenes.
        train: numbers of the scenes of training.
        val: numbers of those of validation.
        cache_mb: memory for decoded scenes.
    """

    file: SceneFile
    train: Sequence[int]
    val: Sequence[int]
    cache_mb: int
    _kept: dict[int, Scene] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.file.size.height, self.file.size.width

    def scene(self, number: int) -> Scene:
        """One scene of the file, kept as far as memory allows."""
        if number in self._kept:
            return self._kept[number]
        scene = self.file.scene(number)
        if _bytes(scene) * (len(self._kept) + 1) <= self.cache_mb * 1e6:
            self._kept[number] = scene
        return scene

    def films(self, numbers: Sequence[int], views: Sequence[int], frames: Sequence[int], device: torch.device) -> Films:
        """Scenes of the file, and of each the frames with these numbers, each by the camera of that view."""
        scenes = [self.scene(number) for number in numbers]
        focal = _stacked([np.float32(scene.focal) for scene in scenes], device)
        at = (list(views), list(frames))
        truth = Truth(
            _pictures([scene.image[at] for scene in scenes], device),
            _stacked([scene.depth[at] for scene in scenes], device),
            _stacked([scene.track[at[1]] for scene in scenes], device),
            _stacked([scene.moving for scene in scenes], device),
        )
        return Films(
            _pictures([scene.image[0] for scene in scenes], device),
            Camera(_stacked([scene.poses[0] for scene in scenes], device), focal),
            Camera(_stacked([scene.poses[at] for scene in scenes], device), focal),
            truth,
            [float(self.file.times[frame]) for frame in frames],
        )

    def videos(self, numbers: Sequence[int], device: torch.device) -> Iterator[Tensor]:
        """The videos of the first camera of scenes, [1, T, 3, H, W] each."""
        for number in numbers:
            yield _pictures([self.scene(number).image[0]], device)

    def mean_picture(self) -> np.ndarray:
        """The mean of all training pictures, 0 to 255, [3, H, W]."""
        total = sum(self.scene(number).image.mean(axis=(0, 1), dtype=np.float64) for number in self.train)
        return np.ascontiguousarray(np.moveaxis(np.asarray(total) / len(self.train), -1, 0), np.float32)


def _bytes(scene: Scene) -> int:
    return scene.image.nbytes + scene.depth.nbytes + scene.track.nbytes + scene.moving.nbytes


def _pictures(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pictures [F, H, W, 3] of scenes, 0 to 255, as [B, F, 3, H, W], 0 to 1."""
    return _stacked(images, device).movedim(-1, -3).float() / WHITE


def _stacked(arrays: Sequence[np.ndarray | np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
