"""Cameras, and Gaussians in space as a camera sees them: plain torch, differentiable.

x points right, y down, z forward; lengths are in units of the scene. The focal length is in half frames: f means that the
shorter side of a frame spans the tangents from -1/f to 1/f. One focal length serves both axes, so pixels are square, and the
longer side of a frame that is not square shows more of the scene; cut to a square, it keeps its focal length. With
S = min(H, W), whole numbers at the centres of pixels,

    x = f S/2 · X/Z + W/2 - 1/2        y = f S/2 · Y/Z + H/2 - 1/2
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEAR = 0.1  # depth; what lies nearer is not drawn
BLUR = 0.3  # px², added to the variance along both axes: no Gaussian can vanish between pixels
MARGIN = 1.3  # half frames at which the linearised projection is held; beyond, it would stretch without limit


class Camera(NamedTuple):
    """world_to_camera: [..., 4, 4], a rotation and a translation. focal: half frames, a number or [...]."""

    world_to_camera: Tensor
    focal: Tensor | float


class Projection(NamedTuple):
    """Gaussians as a camera sees them.

    centre: [..., N, 2] pixels; conic: [..., N, 3], the inverse [a b; b c] of the covariance in pixels; depth: [..., N]
    along the axis; compensation: [..., N], by which the opacity is multiplied, because the blur makes a Gaussian wider
    without making it fainter; 0 where the depth is less than `NEAR`.
    """

    centre: Tensor
    conic: Tensor
    depth: Tensor
    compensation: Tensor


def to_camera(points: Tensor, world_to_camera: Tensor) -> Tensor:
    """Points in the world as a camera sees them: [..., N, 3], [..., 4, 4] -> [..., N, 3]."""
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    return points @ rotation.mT + translation[..., None, :]


def rays(camera: Camera, size: tuple[int, int]) -> Tensor:
    """Plücker coordinates (o × d, d) of the rays through the centres of pixels, in the world: [..., 6, H, W].

    o is the camera's centre, d has length 1; o × d is the same for every point o on the ray.
    """
    rotation, translation = camera.world_to_camera[..., :3, :3], camera.world_to_camera[..., :3, 3]
    focal = _pixels_per_tangent(camera, size)
    offsets = [torch.arange(n, dtype=focal.dtype, device=focal.device) - (n - 1) / 2 for n in size]
    y, x = (offset / focal for offset in offsets)  # [..., H], [..., W]
    along = torch.stack(torch.broadcast_tensors(x[..., None, :], y[..., None], x.new_ones(1)), -1)  # [..., H, W, 3]
    d = normalize(along @ rotation[..., None, :, :], dim=-1)  # a row times R: turned back to the world
    o = -(translation[..., None, :] @ rotation)[..., None, :, :]
    return torch.cat([torch.linalg.cross(o.expand_as(d), d), d], -1).movedim(-1, -3)


def _pixels_per_tangent(camera: Camera, size: tuple[int, int]) -> Tensor:
    """The focal length in pixels, with a dimension for columns, rows or Gaussians: [..., 1]."""
    like = camera.world_to_camera
    return torch.as_tensor(camera.focal, dtype=like.dtype, device=like.device)[..., None] * (min(size) / 2)


def rotations(quaternion: Tensor) -> Tensor:
    """Rotation matrices of quaternions (w, x, y, z) of any length but 0: [..., 4] -> [..., 3, 3]."""
    w, x, y, z = normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(mean: Tensor, scale: Tensor, quaternion: Tensor, camera: Camera, size: tuple[int, int]) -> Projection:
    """Project Gaussians in space to a frame (elliptical weighted averaging, Zwicker et al. 2001).

    The projection is linearised at each centre: with J its derivative and Σ = R diag(scale²) Rᵀ in the camera's
    coordinates, the covariance in pixels is J Σ Jᵀ + 0.3 px². Where a centre is beyond 1.3 half frames, J is that at the
    margin.

    Args:
        mean: [..., N, 3] in the world.
        scale: [..., N, 3] standard deviations along the Gaussian's own axes.
        quaternion: [..., N, 4], the rotation (w, x, y, z) from these axes to the world.
        size: (H, W).
    """
    at, focal = to_camera(mean, camera.world_to_camera), _pixels_per_tangent(camera, size)
    depth = at[..., 2]
    z = depth.clamp(min=NEAR)
    sides = torch.tensor(size[::-1], dtype=at.dtype, device=at.device)
    from_axis = at[..., :2] * (focal / z)[..., None]  # pixels
    held = torch.clamp(from_axis, -MARGIN / 2 * sides, MARGIN / 2 * sides) / focal[..., None]

    # Σ = Aᵀ A; one large product instead of many small ones. A: [..., N, 3 axes, 3 coordinates]
    turned = rotations(quaternion).mT.flatten(-3, -2) @ camera.world_to_camera[..., :3, :3].mT
    axes = turned.unflatten(-2, (-1, 3)) * scale[..., None]
    # The columns of A Jᵀ: J is focal/z times [1 0 -X/Z; 0 1 -Y/Z].
    columns = (axes[..., :2] - axes[..., 2:] * held[..., None, :]) * (focal / z)[..., None, None]
    x, y = columns.unbind(-1)
    a, b, c = (x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1)
    # The determinant of J Σ Jᵀ as the square of a cross product, which rounding cannot make negative.
    area = torch.linalg.vector_norm(torch.linalg.cross(x, y), dim=-1)
    det = area.square() + BLUR * (a + c) + BLUR**2
    conic = torch.stack([c + BLUR, -b, a + BLUR], -1) / det[..., None]
    compensation = torch.where(depth < NEAR, 0, area / det.sqrt())
    return Projection(from_axis + (sides - 1) / 2, conic, depth, compensation)
