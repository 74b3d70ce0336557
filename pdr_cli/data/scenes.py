"""Scenes: pictures of a moving world from moving cameras, with the depth, the cameras and the motion that made them.

A scene is filmed by V cameras (views) at the same T times. `docs/scenes.md` describes the file that holds many of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pdr_cli.data import cameras
from pdr_cli.errors import DataError

KIND = "scene"  # `data.kind` of configurations for scenes, and of their models
WHITE = 255.0  # value of white in pictures
SHARES = (0.8, 0.9)  # where the scenes of training and of validation end
FEWEST = 3  # scenes that can be divided into three parts
SHIFT = 1e-4  # scene units that the first frame's points, or still ones, may be off by rounding
SLACK = 0.01  # relative difference of two depths of one point; pixels beside it are compared too
IN_FRONT, SEEN = 0.01, 0.5  # most points before the surface, and fewest at it, where depth and tracks fit each other


class Size(NamedTuple):
    """How large the scenes of a file are: views, frames, rows, columns."""

    views: int
    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Scene:
    """One scene.

    Args:
        image: [V, T, H, W, 3] uint8, red, green, blue.
        depth: [V, T, H, W] along the axis of the camera, scene units.
        poses: [V, T, 4, 4] world to camera; the world is the first camera of the first view.
        focal: in half frames.
        times: [T], within 0..1.
        track: [T, 3, H, W] by how much the surface point under each pixel of the first view's first frame has moved in
            the world, scene units.
        moving: [H, W], whether that point moves.
    """

    image: np.ndarray
    depth: np.ndarray
    poses: np.ndarray
    focal: float
    times: np.ndarray
    track: np.ndarray
    moving: np.ndarray

    @property
    def size(self) -> Size:
        """Views, frames, rows and columns."""
        return Size(*self.depth.shape)

    @property
    def identity(self) -> str:
        """The SHA-256 of its pictures, by which it is recognised in any file."""
        return hashlib.sha256(np.ascontiguousarray(self.image).tobytes()).hexdigest()


def split(count: int, where: str) -> dict[str, range]:
    """The numbers of the scenes of each part: 80, 10 and 10 %, in order, one scene at least.

    Raises:
        DataError: fewer scenes than parts.
    """
    if count < FEWEST:
        raise DataError(f"{where} holds {count} scenes", f"{FEWEST} or more, for training, validation and test")
    val, test = (int(share * count) for share in SHARES)
    val, test = min(val, count - 2), min(max(test, val + 1), count - 1)
    return {"train": range(val), "val": range(val, test), "test": range(test, count)}


def check_cameras(poses: np.ndarray, focal: float, where: str) -> None:
    """Refuse cameras [V, T, 4, 4] of a scene that are not sound, or a first one that is not the world (DataError)."""
    cameras.check_focal(focal, where)
    for view, path in enumerate(poses):
        cameras.check_poses(path, f"{where}, view {view}")
    cameras.check_first(poses[0, 0], f"{where}, view 0")


def check(scene: Scene, where: str) -> None:
    """Refuse a scene whose numbers cannot be right; shapes are those of the file and checked there.

    Raises:
        DataError: cameras that are not sound, a depth that is not positive and finite, or tracks that are not finite, begin
            elsewhere than at 0, or move a still point.
    """
    check_cameras(scene.poses, scene.focal, where)
    _check_depth(scene.depth, where)
    if not np.isfinite(scene.track).all():
        raise DataError(f"{where}: {int((~np.isfinite(scene.track)).sum())} numbers of track are not finite")
    first = float(np.abs(scene.track[0]).max())
    if first > SHIFT:
        what = f"{where}: track of the first frame is {first:.3g} units, and not 0"
        raise DataError(what, "displacements from the first frame", "subtract the points of the first frame")
    still = float(np.abs(scene.track[..., ~scene.moving]).max(initial=0))
    if still > SHIFT:
        raise DataError(f"{where}: track moves a point by {still:.3g} units that is still in `moving`")


def _check_depth(depth: np.ndarray, where: str) -> None:
    wrong = ~(np.isfinite(depth) & (depth > 0))
    if wrong.any():
        view, frame, row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{where}: {int(wrong.sum())} depths are not positive numbers, the first is {depth[view, frame, row, column]:g} "
            f"in view {view}, frame {frame}, row {row}, column {column}",
            "the depth of each pixel along the axis of its camera",
        )


def rays(size: Size, focal: float) -> np.ndarray:
    """The points [H, W, 3] at depth 1 that the centres of the pixels show, in the frame of the camera."""
    half = min(size.height, size.width) / 2
    y, x = (np.arange(n) + 0.5 - n / 2 for n in (size.height, size.width))
    across, down = np.meshgrid(x / (focal * half), y / (focal * half))
    return np.stack([across, down, np.ones_like(across)], axis=-1)


def points(scene: Scene, frame: int) -> np.ndarray:
    """Where the surface points under the pixels of the first view's first frame are in the world: [H, W, 3]."""
    start = rays(scene.size, scene.focal) * scene.depth[0, 0][..., None]
    return start + np.moveaxis(scene.track[frame], 0, -1)


def project(scene: Scene, world: np.ndarray, view: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the world [..., 3] are seen: row and column [..., 2] in pixels from the upper left corner, and depth.

    Points behind the camera have a depth below 0 and no sensible place.
    """
    pose, size = scene.poses[view, frame].astype(np.float64), scene.size
    x, y, z = np.moveaxis(world @ pose[:3, :3].T + pose[:3, 3], -1, 0)
    scale = scene.focal * min(size.height, size.width) / 2 / np.where(np.abs(z) < 1e-9, 1e-9, z)
    return np.stack([y * scale + size.height / 2, x * scale + size.width / 2], axis=-1), z


@dataclass(frozen=True)
class Agreement:
    """How the tracked points lie to the surfaces that the depths of all views and frames show, as shares of those in view.

    Args:
        in_front: nearer to the camera than the surface, where a point would hide it.
        still: at the surface, of the points that do not move.
        moving: at the surface, of those that move; 1 where none does.
    """

    in_front: float
    still: float
    moving: float

    @property
    def fits(self) -> bool:
        """Whether the tracks can be those of the depths: other points are hidden, and none hides what is seen."""
        return self.in_front <= IN_FRONT and min(self.still, self.moving) >= SEEN


def agreement(scene: Scene) -> Agreement:
    """Compare the tracks of a scene with its depths."""
    size = scene.size
    counts = np.zeros((2, 3))  # [still or moving; in view, in front, at the surface]
    for frame in range(size.frames):
        world = points(scene, frame)
        for view in range(size.views):
            place, depth = project(scene, world, view, frame)
            inside = (depth > 0) & ((place > 1) & (place < [size.height - 1, size.width - 1])).all(axis=-1)
            row, column = place[inside].astype(int).T
            nearest, farthest = _around(scene.depth[view, frame], row, column)
            front = depth[inside] < nearest * (1 - SLACK)
            at = ~front & (depth[inside] <= farthest * (1 + SLACK))
            for moves in (0, 1):
                mine = scene.moving[inside] == bool(moves)
                counts[moves] += [mine.sum(), front[mine].sum(), at[mine].sum()]
    seen = np.divide(counts[:, 2], counts[:, 0], out=np.ones(2), where=counts[:, 0] > 0)
    return Agreement(float(counts[:, 1].sum() / max(counts[:, 0].sum(), 1)), *map(float, seen))


def _around(depth: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest depth of pixels and the eight around each."""
    around = np.stack([depth[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    return around.min(axis=0), around.max(axis=0)
