"""A small world with a known truth: a textured square that slides before a textured wall, seen by pinhole cameras."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pdr_cli.models.scenes.latents import FrameLatents
from pdr_cli.models.scenes.scene import NUMBERS, SceneModel
from pdr_cli.optional_tables import SceneConfig
from pdr_cli.splat.camera import Camera, rays

SIZE, FOCAL, FRAMES = (16, 16), 1.2, 3
WALL, SQUARE, HALF = 4.0, 3.0, 0.7  # depths, and half the side of the square
GOES = torch.tensor([0.8, 0.0, 0.0])  # where the square is at time 1


def table(**changes: Any) -> SceneConfig:
    values: dict[str, Any] = {
        "latents": "oracle", "parts": [], "width": 8, "blocks": 4, "per_pixel": 1, "moves": True, "near": 1.5, "far": 8.0,
        "frames": 3, "fps": 8.0, "lpips": "", "geometry_weight": 0.5,
    }  # fmt: skip
    return SceneConfig(**values | changes)


def model(basis: str = "poly3", prune: float = 0.005, **changes: Any) -> SceneModel:
    torch.manual_seed(0)
    options = table(**changes)
    return SceneModel(FrameLatents(FRAMES, options.width), FRAMES, options, basis, prune)


def awake(model: SceneModel) -> SceneModel:
    """With heads and blocks whose outputs are not near zero."""
    for head in (model.reconstructor.numbers, model.reconstructor.curves):
        torch.nn.init.normal_(head.weight, std=0.3)
    for name, parameter in model.named_parameters():
        if ".last." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert model.reconstructor.numbers.out_channels == model.options.per_pixel * sum(NUMBERS)
    return model


def path(frames: int = FRAMES, turned: float = 0.2, batch: int = 1) -> Camera:
    """A camera that turns about the point at depth 4 by `turned` radians, from the world's."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    for pose, share in zip(poses, torch.linspace(0, 1, frames), strict=True):
        c, s = math.cos(turned * share), math.sin(turned * share)
        turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        point = torch.tensor([0, 0, 4.0])
        pose[:3, :3], pose[:3, 3] = turn, point - turn @ point
    return Camera(poses.expand(batch, -1, -1, -1), torch.full((batch,), FOCAL))


def texture(points: Tensor, phase: float) -> Tensor:
    """A smooth colour of places [..., 3] → [..., 3]."""
    x, y = points[..., 0], points[..., 1]
    waves = [torch.sin(1.5 * x + phase), torch.cos(1.3 * y - phase), torch.sin(x + y + phase)]
    return 0.5 + 0.4 * torch.stack(waves, -1)


def cast(pose: Tensor, time: float, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [3, H, W], depth [H, W] and whether the square is seen [H, W], by a camera [4, 4] at a time."""
    seen = rays(Camera(pose, FOCAL), size)
    d = seen[3:].movedim(0, -1)
    o = torch.linalg.cross(d, seen[:3].movedim(0, -1), dim=-1)  # the point of the ray nearest to the world's origin
    wall, square = (o + (depth - o[..., 2:]) / d[..., 2:] * d for depth in (WALL, SQUARE))
    own = square - time * GOES
    hit = (own[..., :2].abs() < HALF).all(-1)
    colours = torch.where(hit[..., None], texture(own, 2.0), texture(wall, 0.0))
    point = torch.where(hit[..., None], square, wall)
    depth = (point @ pose[:3, :3].T + pose[:3, 3])[..., 2]
    return colours.movedim(-1, 0), depth, hit


def film(cameras: Camera, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Frames [1, T, 3, H, W] and depths [1, T, H, W] of the first path of `cameras`, at times from 0 to 1."""
    poses = cameras.world_to_camera[0]
    shots = [cast(pose, float(t), size) for pose, t in zip(poses, torch.linspace(0, 1, len(poses)), strict=True)]
    return torch.stack([s[0] for s in shots])[None], torch.stack([s[1] for s in shots])[None]
