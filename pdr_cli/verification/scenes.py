"""Scores of a model of scenes: frames that a second camera sees, their depth, and the ways of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdr_cli.data import scenes
from pdr_cli.data.formats import scenefile
from pdr_cli.data.formats.scenefile import SceneFile
from pdr_cli.errors import DataError, UsageError
from pdr_cli.inference.members import DIRECT, Drawing, seeds_of
from pdr_cli.inference.scenes import LoadedScenes
from pdr_cli.models.lpips import LPIPS
from pdr_cli.models.scenes.latents import NoLatents, VideoLatents
from pdr_cli.models.scenes.losses import DRAWN, Truth, pearson
from pdr_cli.models.scenes.scene import Scene, seen
from pdr_cli.models.similarity import ssim
from pdr_cli.runs.films import Films, SceneData
from pdr_cli.splat.camera import Camera
from pdr_cli.splat.compose import Gaussians, View
from pdr_cli.verification import poses

SCORES = ("psnr", "ssim", "depth_pearson", "depth_absrel", "epe", "rpe_t", "rpe_r")
LEAST = 1e-10  # mean squared error of frames that are equal, so that their PSNR is 100 dB
Row = dict[str, float | None]


@dataclass(frozen=True)
class SceneScores:
    """Scores of a model beside simple forecasts, means over scenes.

    Args:
        model, data: the files.
        split: part of the data.
        n_scenes: of that part.
        latents: what `model` and `static` were given: those of the true videos, or none.
        members: drawn of each scene; 0: none.
        seed: from which they were drawn.
        scores: {forecast: {score: value}}; None where it has none. psnr in dB, epe and rpe_t in scene units, rpe_r
            in degrees.
    """

    model: str
    data: str
    split: str
    n_scenes: int
    latents: str
    members: int
    seed: int
    scores: dict[str, Row]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def evaluate(
    model: LoadedScenes, path: Path, split: str = "test", drawing: Drawing = DIRECT, lpips: LPIPS | None = None
) -> SceneScores:
    """Score the frames after the first by the second camera of each scene, beside `static`, `copy` and `truth`.

    `truth` are the true frames with their true depth, which have relative poses alone: the least error that can be measured.

    With the network of LPIPS, on the model's device, rows have its distance of pictures too.

    With members, `drawn` has the mean of each score over those that are drawn from the picture, and `best` the scores of the
    member whose PSNR is the highest, which is chosen for each scene by the truth.

    Raises:
        UsageError: members of a model that draws none, or their mean.
        DataError: no sound scenes, or of another size or length than the model's.
    """
    _check_drawing(model, drawing)
    file = scenefile.read(path)
    _check(model, file)
    data, numbers = SceneData(file, (), (), 0), file.parts[split]
    with torch.inference_mode():
        found = [_scene(model, data, number, drawing, lpips) for number in numbers]
    rows = {name: _means(one[name] for one in found) for name in found[0]}
    where = (str(model.path), str(path), split, len(numbers))
    given = "none" if isinstance(model.network.source, NoLatents) else "true"
    return SceneScores(*where, given, drawing.count, drawing.seed, rows)


def _check_drawing(model: LoadedScenes, drawing: Drawing) -> None:
    if drawing.mean:
        raise UsageError("--members mean: the mean of pictures of several futures is none of them", "a number")
    if drawing.count and not isinstance(model.network.source, VideoLatents):
        latents = model.network.options.latents
        raise UsageError(
            f"--members {drawing.count}: {model.path} was trained with scene.latents={latents}, which has no generator "
            "that draws the latents of a video",
            "a model of drawn, mixed or true latents",
        )


def _check(model: LoadedScenes, file: SceneFile) -> None:
    height, width = model.file.card.size
    expected, size = (1 + model.file.card.config.data.out_steps, height, width), file.size
    if (size.frames, size.height, size.width) != expected:
        raise DataError(
            f"the scenes of {file.path} have {size.frames} frames of {size.height} x {size.width}",
            f"those of the model, {expected[0]} of {height} x {width}",
        )


def _scene(model: LoadedScenes, data: SceneData, number: int, drawing: Drawing, lpips: LPIPS | None) -> dict[str, Row]:
    size = data.file.size
    frames = range(min(1, size.frames - 1), size.frames)
    films = data.films([number], [min(1, size.views - 1)] * len(frames), frames, model.device)
    scene = model.network(model.network.shot(films.video, films.path))
    rows = {"model": _moving(scene, films, lpips), "static": _still(scene, films, lpips)}
    if drawing.count:
        seeds = seeds_of(drawing.seed, drawing.count, [data.scene(number).identity])
        futures = [
            model.network.future(films.video[:, 0], films.path, torch.from_numpy(of).to(model.device)) for of in seeds
        ]
        members = [_moving(future, films, lpips) for future in futures]
        rows |= {"drawn": _means(members), "best": max(members, key=lambda row: row["psnr"] or 0.0)}
    return rows | {"copy": _copy(films, lpips), "truth": _truth(films, data.scene(number), frames)}


def _moving(scene: Scene, films: Films, lpips: LPIPS | None) -> Row:
    way = scene.moves(films.times[-1:])[0][:, 0]
    return _row(scene.at(films.times), way, films, lpips)


def _still(scene: Scene, films: Films, lpips: LPIPS | None) -> Row:
    """The Gaussians at time 0 before the moving camera."""
    return _row(scene.still(len(films.times)), torch.zeros_like(scene.canonical.mean), films, lpips)


def _row(gaussians: Gaussians, way: Tensor, films: Films, lpips: LPIPS | None) -> Row:
    """All scores of the Gaussians of one scene at the times of its frames, and of their ways to the last one."""
    view = seen(gaussians, films.cameras, _size(films))
    moving = films.truth.moving[0].flatten().bool()
    points = gaussians.mean[0].unflatten(1, (-1, len(moving)))[:, :, moving].flatten(1, 2)
    found = drawn(view, films.truth, lpips) | {"epe": epe(way, films.truth)}
    return found | path(view.features[0], view.depth[0], view.weight[0] > DRAWN, points, films.cameras)


def _truth(films: Films, scene: scenes.Scene, frames: Sequence[int]) -> Row:
    """The true frames and depths of the second view."""
    points = np.stack([scenes.points(scene, frame)[scene.moving] for frame in frames])
    moving = torch.from_numpy(points).to(films.truth.depth)
    whole = torch.ones_like(films.truth.depth[0], dtype=torch.bool)
    blank: Row = dict.fromkeys(SCORES)
    return blank | path(films.truth.frames[0], films.truth.depth[0], whole, moving, films.cameras)


def path(frames: Tensor, depth: Tensor, covered: Tensor, moving: Tensor, cameras: Camera) -> Row:
    """Errors of the relative poses of consecutive frames, see `poses.errors`, on pixels without moving points.

    Args:
        frames: [F, 3, H, W].
        depth: [F, H, W].
        covered: whether a pixel has a depth, [F, H, W].
        moving: points that move, where they are in each frame, [F, n, 3].
        cameras: of one scene, [1, F, 4, 4]; focal [1].
    """
    asked = Camera(cameras.world_to_camera[0], float(torch.as_tensor(cameras.focal)[0]))
    still = poses.clear_of(moving, asked, (depth.shape[-2], depth.shape[-1]))
    shift, turn = poses.errors(frames, depth, still & covered, asked)
    return {"rpe_t": shift, "rpe_r": turn}


def _size(films: Films) -> tuple[int, int]:
    return films.truth.depth.shape[-2], films.truth.depth.shape[-1]


def _copy(films: Films, lpips: LPIPS | None) -> Row:
    """The picture in place of every frame, which has no depth and no ways."""
    blank: Row = dict.fromkeys(SCORES)
    return blank | pictures(films.video[:, :1].expand_as(films.truth.frames), films.truth.frames, lpips)


def drawn(view: View, truth: Truth, lpips: LPIPS | None = None) -> Row:
    """Scores of the frames of one scene and of their depth, where at least half of a pixel is covered."""
    covered = view.weight > DRAWN
    mine, true = view.depth[covered], truth.depth[covered]
    if not len(mine):
        return pictures(view.features, truth.frames, lpips) | {"depth_pearson": None, "depth_absrel": None}
    inverse = 1 / torch.where(covered, view.depth, 1)
    alike = pearson(inverse, 1 / truth.depth, covered.to(inverse)).mean()
    scaled = mine * (true / mine).median()
    return pictures(view.features, truth.frames, lpips) | {
        "depth_pearson": float(alike),
        "depth_absrel": float(((scaled - true).abs() / true).mean()),
    }


def pictures(made: Tensor, truth: Tensor, lpips: LPIPS | None = None) -> Row:
    """PSNR in dB, SSIM and, with its network, LPIPS of frames from 0 to 1, [1, F, 3, H, W], means over frames."""
    error = (made - truth).square().mean(dim=(-3, -2, -1)).clamp_min(LEAST)
    found: Row = {
        "psnr": float(-10 * error.log10().mean()),
        "ssim": float(ssim(made, truth, made.new_ones(3)).mean()),
    }
    return found if lpips is None else found | {"lpips": float(lpips.distance(made[0], truth[0]).mean())}


def epe(way: Tensor, truth: Truth) -> float | None:
    """Mean distance between ways [1, k·H·W, 3] and tracks to the last frame, of moving pixels; None without any."""
    track = truth.track[:, -1].flatten(2).mT  # [1, H·W, 3]
    far = (way.unflatten(1, (-1, track.shape[1])) - track[:, None]).norm(dim=-1)
    found = far[truth.moving.flatten(1)[:, None].bool().expand_as(far)]
    return float(found.mean()) if len(found) else None


def _means(rows: Iterable[Row]) -> Row:
    """The mean of each score."""
    found = list(rows)
    return {score: _mean([row.get(score) for row in found]) for score in found[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
