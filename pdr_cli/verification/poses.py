"""How a camera has moved between consecutive frames, found again from what they show: optical flow, and depth, of still pixels.

Where a video keeps to the path that was asked for, and its depth to its pictures, the poses that are found are those of the path.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdr_cli.models.motion import RADIUS, displaced, flow_between, positions
from pdr_cli.models.tracking import closes, textured
from pdr_cli.splat.camera import Camera, to_camera

FEWEST = 50  # matches from which a pose is solved
ITERATIONS, CLOSE = 30, 1e-5  # of Gauss-Newton, at most, and the step after which it ends
CAUCHY, NORMAL = (
    2.385,
    1.4826,
)  # of an estimator that is 95 % efficient; standard deviation of a normal over its median deviation
LEAST = 1e-3  # pixels, below which all matches count alike
DAMPED = 1e-9  # share of the diagonal that keeps the equations solvable
AROUND = RADIUS  # pixels around a moving point that do not count: a window of the flow mixes what moves with what is beside it


def errors(frames: Tensor, depth: Tensor, counts: Tensor, cameras: Camera) -> tuple[float | None, float | None]:
    """Mean errors of the relative poses of consecutive frames: of the shift, scene units, and of the rotation, degrees.

    The matches of a pair are the Lucas-Kanade flow from its first frame, where the flow back agrees and the frame has texture;
    a robust Gauss-Newton from a camera that has not moved finds the pose that takes the points under its pixels to where they
    have gone. None where no pair has enough of them.

    Args:
        frames: [F, C, H, W].
        depth: along the axis of the camera, [F, H, W].
        counts: True for pixels that stand still and have a depth, [F, H, W].
        cameras: those asked for, [F, 4, 4], focal a number.
    """
    if len(frames) < 2:
        return None, None
    poses, size = cameras.world_to_camera.double(), (frames.shape[-2], frames.shape[-1])
    pixels_per_tangent = float(cameras.focal) * min(size) / 2
    found = []
    for first, (here, there, good) in enumerate(_matches(frames, depth, counts, pixels_per_tangent)):
        if int(good.sum()) >= FEWEST:
            pose = solved(here[good], there[good], pixels_per_tangent)
            found.append(differences(pose, poses[first + 1] @ torch.linalg.inv(poses[first])))
    shift, turn = zip(*found, strict=True) if found else ((), ())
    return _mean(shift), _mean(turn)


def _matches(
    frames: Tensor, depth: Tensor, counts: Tensor, pixels_per_tangent: float
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each pair the points under the pixels of its first frame, where they are seen in its second, and which count.

    Points [H, W, 3] in the first camera; places [H, W, 2] in pixels from the axis; [H, W] bool.
    """
    ahead, back = flow_between(frames[:-1], frames[1:]), flow_between(frames[1:], frames[:-1])
    H, W = frames.shape[-2:]
    columns, rows = positions(ahead)
    x, y = columns + ahead[:, 0], rows + ahead[:, 1]
    arrives = displaced(counts[1:, None].float(), ahead)[:, 0] > 1 - 1e-3
    good = (closes(ahead, displaced(back, ahead))[:, 0] > 0) & (textured(frames[:-1])[:, 0] > 0) & counts[:-1] & arrives
    good &= (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
    centre = ahead.new_tensor([(W - 1) / 2, (H - 1) / 2])
    start = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1) - centre  # [1, H, W, 2]
    along = torch.cat([start / pixels_per_tangent, torch.ones_like(start[..., :1])], dim=-1).double()
    points = along * depth[:-1, ..., None].double()
    places = (torch.stack([x, y], dim=-1) - centre).double()
    return list(zip(points, places, good, strict=True))


def solved(points: Tensor, places: Tensor, pixels_per_tangent: float) -> Tensor:
    """The pose [4, 4] that takes points [n, 3] of a camera to another camera, which sees them at places [n, 2].

    Gauss-Newton on the distances in pixels from the axis, weighted by Cauchy's function of their median, so that matches that
    are wrong, as at edges and on what moves after all, count little.
    """
    pose = torch.eye(4, dtype=points.dtype, device=points.device)
    for _ in range(ITERATIONS):
        moved = to_camera(points, pose)
        per_unit = pixels_per_tangent / moved[:, 2:]
        gap = places - moved[:, :2] * per_unit
        far = gap.norm(dim=-1)
        weight = 1 / (1 + (far / (CAUCHY * NORMAL * far.median()).clamp_min(LEAST)).square())
        slope = _slope(moved, per_unit)
        normal = torch.einsum("n,nip,niq->pq", weight, slope, slope)
        normal = normal + DAMPED * normal.diagonal().mean() * torch.eye(6).to(normal)
        step = torch.linalg.solve(normal, torch.einsum("n,nip,ni->p", weight, slope, gap))
        pose = _motion(step) @ pose
        if float(step.norm()) < CLOSE:
            break
    return pose


def _slope(points: Tensor, per_unit: Tensor) -> Tensor:
    """Derivatives [n, 2, 6] of the places of points [n, 3] by a shift (3) and a rotation (3) of them."""
    x, y, z = points.unbind(dim=-1)
    none, one = torch.zeros_like(x), torch.ones_like(x)
    shifted = torch.stack([one, none, -x / z, none, one, -y / z], dim=-1).unflatten(-1, (2, 3)) * per_unit[..., None]
    turned = torch.stack([none, z, -y, -z, none, x, y, -x, none], dim=-1).unflatten(-1, (3, 3))  # ω × X = turned @ ω
    return torch.cat([shifted, shifted @ turned], dim=-1)


def _motion(step: Tensor) -> Tensor:
    """A shift and a rotation vector [6] as a pose [4, 4]."""
    x, y, z = step[3:].tolist()
    pose = torch.eye(4).to(step)
    pose[:3, :3] = torch.linalg.matrix_exp(step.new_tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    pose[:3, 3] = step[:3]
    return pose


def differences(found: Tensor, asked: Tensor) -> tuple[float, float]:
    """The distance of the shifts of two poses [4, 4], and the angle between their rotations in degrees."""
    chord = (found[:3, :3] - asked[:3, :3]).norm() / math.sqrt(8)  # sine of half the angle, exact where it is small
    return float((found[:3, 3] - asked[:3, 3]).norm()), math.degrees(2 * math.asin(min(1.0, float(chord))))


def clear_of(points: Tensor, cameras: Camera, size: tuple[int, int]) -> Tensor:
    """Pixels that are not near one of some points: points [F, n, 3] in the world, a camera for each frame → [F, H, W] bool."""
    H, W = size
    x, y, z = to_camera(points, cameras.world_to_camera).unbind(dim=-1)
    per_unit = float(cameras.focal) * min(size) / 2 / z.clamp_min(1e-6)
    column, row = (x * per_unit + (W - 1) / 2).round(), (y * per_unit + (H - 1) / 2).round()
    seen = (z > 0) & (column >= 0) & (column < W) & (row >= 0) & (row < H)
    marked = points.new_zeros(len(points), H * W)
    place = torch.where(seen, row * W + column, 0).long()
    marked.scatter_reduce_(1, place, seen.to(marked), reduce="amax")
    near = torch.nn.functional.max_pool2d(marked.view(-1, 1, H, W), 2 * AROUND + 1, stride=1, padding=AROUND)
    return near[:, 0] == 0


def _mean(values: tuple[float, ...]) -> float | None:
    return sum(values) / len(values) if values else None
