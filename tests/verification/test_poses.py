"""Relative poses that are found again from flow and depth, of motions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pdr_cli.data import cameras, scene_samples
from pdr_cli.data.scene_samples import Plane
from pdr_cli.data.scenes import Size
from pdr_cli.splat.camera import Camera, to_camera
from pdr_cli.verification import poses

FOCAL, SIDE = 1.2, 64
PER_TANGENT = FOCAL * SIDE / 2


def pose(
    degrees: float, shift: tuple[float, float, float], axis: tuple[float, float, float] = (0, 1, 0)
) -> torch.Tensor:
    """A turn about an axis of length 1, then a shift: [4, 4]."""
    made = torch.eye(4, dtype=torch.float64)
    made[:3, :3] = torch.from_numpy(cameras.rotation(np.array(axis, float), math.radians(degrees)))
    made[:3, 3] = torch.tensor(shift)
    return made


def seen_from(points: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    moved = to_camera(points, camera)
    return PER_TANGENT * moved[:, :2] / moved[:, 2:]


def points(count: int) -> torch.Tensor:
    place = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (place * 2 - 1) * torch.tensor([2.0, 2.0, 1.5]) + torch.tensor([0, 0, 4.5])


def test_exact_matches_give_the_pose() -> None:
    moved = pose(5, (0.3, -0.1, 0.2), (0.6, 0.8, 0))
    assert poses.solved(points(200), seen_from(points(200), moved), PER_TANGENT) == pytest.approx(moved, abs=1e-6)


def test_a_quarter_of_wrong_matches_hardly_change_it() -> None:
    moved, places = pose(3, (0.1, 0, 0.05)), seen_from(points(200), pose(3, (0.1, 0, 0.05)))
    places[::4] += torch.tensor([4.0, -3.0])
    shift, turn = poses.differences(poses.solved(points(200), places, PER_TANGENT), moved)
    assert shift < 0.01
    assert turn < 0.1


def test_differences_are_a_distance_and_an_angle() -> None:
    shift, turn = poses.differences(pose(7, (0, 0, 0.5)), pose(5, (0.3, 0, 0.1)))
    assert shift == pytest.approx(0.5)  # of (0.3, 0, 0.4)
    assert turn == pytest.approx(2)


@pytest.fixture(scope="module")
def film() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, depth and poses of a camera that turns by 1.5 degrees and goes 0.1 units between three frames, in an empty room."""
    room = [part for part in scene_samples.room(np.random.default_rng(3)) if isinstance(part, Plane)]
    path = torch.stack([pose(1.5 * k, (0.1 * k, 0, -0.03 * k)) for k in range(3)])
    size = Size(1, 3, SIDE, SIDE)
    shots = [scene_samples.shot(room, camera.numpy(), 0.0, size) for camera in path]
    frames = torch.from_numpy(np.stack([shot[0] for shot in shots])).movedim(-1, 1).float() / 255
    return frames, torch.from_numpy(np.stack([shot[1] for shot in shots])).float(), path


def found(film: tuple[torch.Tensor, torch.Tensor, torch.Tensor], path: torch.Tensor) -> tuple[float, float]:
    frames, depth, _ = film
    shift, turn = poses.errors(frames, depth, torch.ones_like(depth, dtype=torch.bool), Camera(path, cameras.FOCAL))
    assert shift is not None
    assert turn is not None
    return shift, turn


def test_true_frames_and_depths_have_the_poses_of_their_path(
    film: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    # Of a way of 0.104 units and a turn of 1.5 degrees, as far as the flow of 64 pixels tells them apart.
    shift, turn = found(film, film[2])
    assert shift < 0.015
    assert turn < 0.15


def test_another_path_than_asked_for_is_off_by_its_difference(
    film: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    turned = torch.stack([pose(-0.5 * k, (0, 0, 0), (1, 0, 0)) @ camera for k, camera in enumerate(film[2])])
    assert found(film, turned)[1] == pytest.approx(0.5, abs=0.15)
    shifted = torch.stack([pose(0, (0, 0.2 * k, 0)) @ camera for k, camera in enumerate(film[2])])
    # In the camera's own coordinates a step is longer by the turn of 1.5 degrees: by 0.5 %.
    assert found(film, shifted)[0] == pytest.approx(0.2, abs=0.01)
    standing = film[2][:1].expand(3, 4, 4)
    assert found(film, standing)[0] == pytest.approx(0.104, abs=0.01)


def test_depth_of_half_the_size_halves_the_way(film: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    frames, depth, path = film
    half = path.clone()
    half[:, :3, 3] /= 2
    shift, _ = found((frames, depth / 2, path), half)
    assert shift < 0.01
    assert found((frames, depth / 2, path), path)[0] > 0.04  # of 0.052


def test_without_texture_matches_or_a_second_frame_there_is_none(
    film: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    frames, depth, path = film
    every, camera = torch.ones_like(depth, dtype=torch.bool), Camera(path, cameras.FOCAL)
    assert poses.errors(torch.full_like(frames, 0.5), depth, every, camera) == (None, None)
    assert poses.errors(frames, depth, ~every, camera) == (None, None)
    assert poses.errors(frames[:1], depth[:1], every[:1], camera) == (None, None)


def test_pixels_near_a_moving_point_do_not_count() -> None:
    # 38.4 pixels a tangent: the first point is 8 pixels right of the centre at 31.5; the others are behind, and far to the left.
    point = torch.tensor([[[8 / PER_TANGENT * 2, 0, 2], [0, 0, -2.0], [-9.0, 0, 1]]])
    camera = Camera(torch.eye(4)[None], FOCAL)
    clear = poses.clear_of(point, camera, (SIDE, SIDE))[0]
    rows, columns = (~clear).nonzero(as_tuple=True)
    near = 2 * poses.AROUND + 1
    assert len(rows) == near * near
    assert (int(columns.min()) + int(columns.max())) / 2 == pytest.approx(39.5, abs=0.5)
    assert (int(rows.min()) + int(rows.max())) / 2 == pytest.approx(31.5, abs=0.5)
