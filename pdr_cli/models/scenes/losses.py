"""What is learnt from scenes: the pictures, the depth and the motion of their points (Diff4Splat, arXiv 2511.00503)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdr_cli.models.gaussians.moving import SHRINK, by_halves
from pdr_cli.models.interfaces import Terms
from pdr_cli.models.lpips import LPIPS
from pdr_cli.models.scenes.scene import Scene, inverse_depth
from pdr_cli.models.similarity import ssim
from pdr_cli.splat.compose import View

STRUCTURE = 0.05  # weight of 1 - SSIM beside the mean squared error
PERCEPTUAL = 0.5  # weight of LPIPS beside it (arXiv 2511.00503)
SMOOTHNESS = 0.5  # weight of the total variation beside the correlation of inverse depths
DRAWN = 0.5  # Σ w from which a pixel has a depth
ROUNDED = 1e-8  # square of a length, scene units, below which an error counts as a square


class Truth(NamedTuple):
    """Frames of scenes, each by one camera.

    Args:
        frames: 0 to 1, [B, F, 3, H, W].
        depth: along the axis of the camera, [B, F, H, W].
        track: by how much the point under each pixel of the picture has moved by then, [B, F, 3, H, W].
        moving: whether that point moves, [B, H, W].
    """

    frames: Tensor
    depth: Tensor
    track: Tensor
    moving: Tensor


def terms(scene: Scene, way: Tensor | None, drawn: View, truth: Truth, perceptual: LPIPS | None = None) -> Terms:
    """The losses by name, unweighted; without ways none of motion.

    Args:
        scene: that was drawn.
        way: of its Gaussians to the times of the frames, [B, F, N, 3]; None while they stand still.
        drawn: the frames.
        truth: the true frames.
        perceptual: see `photometric`.
    """
    size = (truth.depth.shape[-2], truth.depth.shape[-1])
    found = {
        "photometric": photometric(drawn.features, truth.frames, perceptual),
        "geometry": geometric(drawn, truth.depth, inverse_depth(scene, size)),
        "opacity": scene.canonical.opacity.mean(),
    }
    return found if way is None else found | {"motion": motion(way, truth.track, truth.moving)}


def photometric(drawn: Tensor, truth: Tensor, perceptual: LPIPS | None = None) -> Tensor:
    """Mean squared error + 0.5 LPIPS of frames from 0 to 1, [B, F, 3, H, W]; without its network + 0.05 (1 - SSIM)."""
    error = torch.nn.functional.mse_loss(drawn, truth)
    if perceptual is not None:
        return error + PERCEPTUAL * perceptual(drawn.flatten(0, 1), truth.flatten(0, 1)).mean()
    similar = ssim(drawn, truth, drawn.new_ones(drawn.shape[-3])).mean()
    return error + STRUCTURE * (1 - similar)


def geometric(drawn: View, depth: Tensor, canonical: Tensor) -> Tensor:
    """1 - the correlation of inverse depths in each frame + 0.5 total variation of the canonical inverse depth.

    Args:
        drawn: pixels of which less than half is covered do not count.
        depth: the true one, [B, F, H, W].
        canonical: inverse depths, [B, k, H, W].
    """
    covered = (drawn.weight > DRAWN).to(depth)
    mine = 1 / torch.where(drawn.weight > DRAWN, drawn.depth, 1)
    return 1 - pearson(mine, 1 / depth, covered).mean() + SMOOTHNESS * total_variation(canonical)


def pearson(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The correlation of the pixels of each frame, [..., H, W] → [...]; 0 where one of the frames is constant."""
    share = weight / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    x, y = (a - (share * a).sum(dim=(-2, -1), keepdim=True) for a in (x, y))
    xx, xy, yy = ((share * a).sum(dim=(-2, -1)) for a in (x * x, x * y, y * y))
    return xy / (xx * yy + 1e-12).sqrt()


def total_variation(maps: Tensor) -> Tensor:
    """The mean absolute difference of neighbours along rows plus that along columns, of [..., H, W]."""
    return maps.diff(dim=-1).abs().mean() + maps.diff(dim=-2).abs().mean()


def motion(way: Tensor, track: Tensor, moving: Tensor) -> Tensor:
    """2 ‖way - track‖₂ + 0.1 ‖way‖₁ in scene units; moving and still points of each scene count half each.

    Args:
        way: of k Gaussians a pixel, [B, F, k·H·W, 3].
        track: [B, F, 3, H, W].
        moving: [B, H, W].
    """
    way = way.unflatten(2, (-1, track.shape[-2] * track.shape[-1]))  # [B, F, k, H·W, 3]
    error = 2 * ((way - track.flatten(3).mT[:, :, None]).square().sum(dim=-1) + ROUNDED).sqrt()
    error = error + SHRINK * way.abs().sum(dim=-1)
    moves = moving.flatten(1)[:, None, None].to(error).expand_as(error)
    scenes = zip(error, moves, strict=True)
    return torch.stack([by_halves(of_one, moves, torch.ones_like(of_one)) for of_one, moves in scenes]).mean()
