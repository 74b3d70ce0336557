"""Scenes on one page: a picture, the path of a camera and the latents of a video to Gaussians that move, and their views.

After Diff4Splat (arXiv 2511.00503): a canonical set of Gaussians, read once, and for each a small deformation at each time.
The world is the camera of the picture; lengths are in units of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.gaussians.moving import BASES, curves
from pdr_cli.models.scenes.latents import LatentSource
from pdr_cli.models.scenes.reconstructor import Reconstructor
from pdr_cli.splat.camera import Camera, rays
from pdr_cli.splat.compose import Gaussians, View, view

if TYPE_CHECKING:
    from pdr_cli.optional_tables import SceneConfig

NUMBERS = (1, 3, 3, 4, 1, 3)  # of a Gaussian: inverse depth, nudge, log σ, quaternion, opacity, colour
MOVES = (3, 4, 3)  # curves of a Gaussian: place, quaternion, log σ
NUDGE = 0.1  # of its depth, by which a Gaussian may lie beside the ray of its pixel
STRETCH = 1.2  # largest departure of log σ from that of a pixel's footprint
TINT = 0.25  # largest departure of a colour from that of the pixel
FIRST_OPACITY = 1.0  # added to the raw opacity
TURN, GROW = 0.3, 0.3  # of the raw curves of quaternions and log σ


class Shot(NamedTuple):
    """What a scene is made of.

    Args:
        picture: at time 0, 0 to 1, [B, 3, H, W].
        path: cameras of the video, whose first is the world, [B, T, 4, 4]; focal [B].
        latents: of the video, [B, G, z, h, w].
    """

    picture: Tensor
    path: Camera
    latents: Tensor


@dataclass(frozen=True)
class Scene:
    """Gaussians that move.

    Args:
        canonical: the Gaussians at time 0, with all their opacities: N of them, [B, N, ...].
        weights: of the basis of their curves, [B, N, 10, K].
        basis: see `moving.BASES`.
        leads: frames after the first in the training's videos.
        prune: opacity below which a Gaussian is not drawn.
    """

    canonical: Gaussians
    weights: Tensor
    basis: str
    leads: int
    prune: float

    def moves(self, times: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
        """The ways [B, times, N, 3] and the changes of quaternions and log σ at times from 0 to 1; 0 at time 0."""
        with torch.autocast(self.weights.device.type, enabled=False):
            change = curves(self.weights, self.basis, [time * self.leads for time in times], self.leads)
        way, turn, grow = change.split(MOVES, dim=-1)
        return way, TURN * turn, GROW * grow

    def at(self, times: Sequence[float]) -> Gaussians:
        """The Gaussians at times from 0 to 1, [B, times, N, ...]; those below the opacity of pruning have none."""
        still = self.still(len(times))
        way, turn, grow = self.moves(times)
        return still._replace(mean=still.mean + way, scale=still.scale * grow.exp(), quaternion=still.quaternion + turn)

    def still(self, count: int = 1) -> Gaussians:
        """The canonical Gaussians, `count` times: [B, count, N, ...], pruned as those of `at`."""
        drawn = self.canonical._replace(opacity=pruned(self.canonical.opacity, self.prune))
        return Gaussians(*(x[:, None].expand(-1, count, *x.shape[1:]) for x in drawn))


class SceneModel(nn.Module):
    """The latents of a video, made from it or drawn, and the Reconstructor that reads them.

    Args:
        source: of the latents.
        frames: T of the training's videos.
        options: the [scene] table.
        basis: of the curves, see `moving.BASES`.
        prune: opacity below which a Gaussian is not drawn.
    """

    def __init__(self, source: LatentSource, frames: int, options: SceneConfig, basis: str, prune: float) -> None:
        super().__init__()
        self.source, self.options, self.basis, self.prune = source, options, basis, prune
        self.leads = max(1, frames - 1)
        functions = len(BASES[basis](0.0, self.leads))
        numbers = (options.per_pixel * sum(NUMBERS), options.per_pixel * sum(MOVES) * functions)
        self.reconstructor = Reconstructor((source.channels + 6) * source.groups, source.halvings, numbers, options)

    def shot(self, video: Tensor, path: Camera) -> Shot:
        """The shot of a true video, [B, T, 3, H, W], along its path."""
        return Shot(video[:, 0], path, self.source.encode(video))

    def future(self, picture: Tensor, path: Camera, seeds: Tensor) -> Scene:
        """The scene of a picture [B, 3, H, W] and latents that are drawn behind it along a path, by its seed [B].

        Raises:
            ConfigError: latents that need the true video.
        """
        size = (picture.shape[-2], picture.shape[-1])
        scene: Scene = self(Shot(picture, path, self.source.draw(picture, rays(along(path), size), seeds)))
        return scene

    def forward(self, shot: Shot) -> Scene:
        """The scene of a shot; N is `per_pixel`·H·W, pixels row by row."""
        size = (shot.picture.shape[-2], shot.picture.shape[-1])
        with torch.autocast(shot.picture.device.type, enabled=False):
            seen = rays(along(shot.path), size)  # [B, T, 6, H, W]
        numbers, weights = self.reconstructor(shot.latents, self.source.rays(seen), shot.picture, seen[:, 0])
        canonical = self._canonical(by_gaussian(numbers, sum(NUMBERS)), shot, seen[:, 0])
        moves = by_gaussian(weights, weights.shape[1] // self.options.per_pixel).unflatten(-1, (sum(MOVES), -1))
        if not self.options.moves:
            moves = torch.zeros_like(moves)
        return Scene(canonical, moves, self.basis, self.leads, self.prune)

    def _canonical(self, raw: Tensor, shot: Shot, first: Tensor) -> Gaussians:
        """Unbounded numbers [B, N, 15] to the Gaussians along the rays [B, 6, H, W] of the picture's pixels."""
        depth, nudge, scale, quaternion, opacity, colour = raw.split(NUMBERS, dim=-1)
        near, far, k = self.options.near, self.options.far, self.options.per_pixel
        z = 1 / (torch.sigmoid(depth) * (1 / near - 1 / far) + 1 / far)
        pixel = by_gaussian(shot.picture.float().repeat(1, k, 1, 1), 3)
        ray = by_gaussian((first[:, 3:] / first[:, 5:]).repeat(1, k, 1, 1), 3)  # at depth 1
        focal = torch.as_tensor(shot.path.focal, dtype=z.dtype, device=z.device).reshape(-1, 1, 1)
        footprint = z / (focal * min(shot.picture.shape[-2:]) / 2)
        return Gaussians(
            mean=ray * z + NUDGE * z * torch.tanh(nudge),
            scale=footprint * torch.exp(STRETCH * torch.tanh(scale)),
            quaternion=quaternion + quaternion.new_tensor([1.0, 0, 0, 0]),
            opacity=torch.sigmoid(opacity[..., 0] + FIRST_OPACITY),
            features=(pixel + TINT * torch.tanh(colour)).clamp(0, 1),
        )


def seen(gaussians: Gaussians, cameras: Camera, size: tuple[int, int]) -> View:
    """Frames (H, W) of Gaussians [B, times, N, ...] by a camera for each time, [B, times, 4, 4]; focal [B]."""
    return view(gaussians, along(cameras), size=size)


def along(path: Camera) -> Camera:
    """A path [B, T, 4, 4] whose focal length [B] has a dimension for the frames."""
    focal = torch.as_tensor(path.focal, device=path.world_to_camera.device)
    return Camera(path.world_to_camera, focal[..., None])


def pruned(opacity: Tensor, least: float) -> Tensor:
    """Opacities, and 0 in place of those below `least`."""
    return opacity * (opacity >= least)


def by_gaussian(maps: Tensor, numbers: int) -> Tensor:
    """Maps [B, k·numbers, H, W] of k Gaussians a pixel as rows [B, k·H·W, numbers]."""
    return maps.unflatten(1, (-1, numbers)).permute(0, 1, 3, 4, 2).flatten(1, 3)


def inverse_depth(scene: Scene, size: tuple[int, int]) -> Tensor:
    """1 over the depth of the canonical Gaussians in the picture's camera, as maps [B, k, H, W]."""
    return (1 / scene.canonical.mean[..., 2]).unflatten(1, (-1, *size))
