"""Films of a scene: one picture and the path of a camera to the frames that it, or another one, will see, and their depth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.data import cameras, formats, kinds, regrid
from pdr_cli.data.cameras import CameraPath
from pdr_cli.data.formats import camerafile
from pdr_cli.data.scenes import WHITE
from pdr_cli.data.series import MEMBERS, Series, make_like, make_series, names, with_members
from pdr_cli.errors import ConfigError, DataError, GridError, UsageError
from pdr_cli.inference.between import Between
from pdr_cli.inference.members import Drawing, seeds_of
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.inference.provenance import command_line, origin
from pdr_cli.system.names import printable

if TYPE_CHECKING:
    import torch

    from pdr_cli.inference.scenes import LoadedScenes
    from pdr_cli.models.scenes.scene import Scene
    from pdr_cli.runs.modelfile import ModelCard
    from pdr_cli.splat.camera import Camera

AT_ONCE = 32  # frames that are drawn together
PICTURED = "picture"  # what the seeds of futures are named after, see `members.seeds_of`
CAMERA = "pdr_camera"  # attribute of a film: its cameras
DIFF4SPLAT = "Diff4Splat, arXiv:2511.00503; Video Generation with Predictive Latents, arXiv:2605.02134"
DEPTH = {"depth": {"units": "1", "long_name": "depth along the axis of the camera, in units of the scene"}}


@dataclass(frozen=True)
class Filming:
    """The options of `pdr predict` for models of scenes.

    Args:
        camera: path of the video: a camera file, or a name of `cameras.WAYS`.
        view: cameras that see the frames instead; None: those of the path.
        depth: file to write the depth of the frames to.
    """

    camera: str | None = None
    view: str | None = None
    depth: Path | None = None

    @property
    def given(self) -> list[str]:
        """The options that are given."""
        return [f"--{f.name}" for f in fields(self) if getattr(self, f.name) is not None]

    def stage(self, card: ModelCard, steps: int | None = None, between: Between = Between()) -> Stage:
        """The cameras of a film.

        Args:
            card: of the model.
            steps: frames after the first, of a path that has a name; None: those of training.
            between: how finely they divide the steps.

        Raises:
            UsageError: no path, one that has no name or number that is known, or more steps than the model has learnt.
            InputNotFoundError, DataError: a camera file that is missing or not sound.
        """
        leads = card.config.data.out_steps
        if self.camera is None:
            raise UsageError(
                "a model of scenes films a picture along the path of a camera",
                way_out="add --camera orbit:20, or a file",
            )
        times = cameras.even_times(1 + leads)
        if camerafile.names_file(self.camera):
            if steps is not None or between.parts > 1:
                raise UsageError(
                    f"--camera {self.camera} gives the times of all frames", way_out="leave out --steps and --every"
                )
            asked = camerafile.read(Path(self.camera))
            path = cameras.at(asked, times)
        else:
            if (steps or 0) > leads:
                raise UsageError(
                    f"--steps {steps}: the model's scenes end after {leads} steps, and are not continued",
                    way_out="--every 0.5 draws more frames in between",
                )
            shown = cameras.even_times(1 + leads * between.parts)[: 1 + (steps or leads) * between.parts]
            path, asked = (cameras.named(self.camera, at) for at in (times, shown))
        return Stage(path, self._view(asked))

    def _view(self, path: CameraPath) -> CameraPath:
        if self.view is None:
            return path
        if camerafile.names_file(self.view):
            return camerafile.read(Path(self.view), first=False)
        return cameras.named(self.view, path.times, path.focal, option="--view")


NOT_FILMED = Filming()


@dataclass(frozen=True)
class Stage:
    """The cameras of a film.

    Args:
        path: of the video, at the times of training: what the model is given.
        seen: cameras that the frames are drawn by, and their times.
    """

    path: CameraPath
    seen: CameraPath


@dataclass(frozen=True)
class Film:
    """A film.

    Args:
        picture: that it begins with, as the model was given it.
        frames: values 0 to 255, dims (time, channel, y, x), of several members after `realization`; black where no Gaussian is.
        depth: in units of the scene, with one channel; NaN where less than half of a pixel is covered.
        ways: where the Gaussians of the first member are in the picture at time 0 and at the last frame's, [N, 2, (x, y)] pixels.
    """

    picture: Series
    frames: Series
    depth: Series
    ways: np.ndarray


def fitted(picture: Series, size: tuple[int, int], method: str = "none") -> Series:
    """A picture of the model's size.

    Args:
        picture: one frame.
        size: (H, W) of the model.
        method: how a picture of another size is interpolated, see `regrid.METHODS`; "none": it is refused.

    Raises:
        GridError: another size that is not to be interpolated, another shape, or a smaller picture.
    """
    height, width = picture.sizes["y"], picture.sizes["x"]
    if (height, width) == size:
        return picture
    where = f"{picture.attrs['files'][0]} is {height} x {width}"
    expected = f"pictures as those of the model's training, {size[0]} x {size[1]}"
    if abs(width * size[0] - height * size[1]) > max(size):  # a pixel of the result
        raise GridError(where, expected, "cut it to that shape first")
    if height < size[0] or width < size[1]:
        raise GridError(where, expected, "take a larger picture")
    if method == "none":
        raise GridError(where, expected, "--regrid conservative makes it smaller by means of areas")
    sides: dict[str, regrid.Coordinate] = {
        side: (side, (np.arange(n) + 0.5) / n, {}) for side, n in (("y", height), ("x", width))
    }
    target: list[regrid.Coordinate] = [(side, (np.arange(n) + 0.5) / n, {}) for side, n in zip("yx", size, strict=True)]
    made = regrid.to_grid(picture.assign_coords(sides), target[0], target[1], method)
    return make_like(made, made.values, sides={}).assign_attrs(regridded=method)


def picture_of(paths: Sequence[Path], size: tuple[int, int], policy: InputPolicy) -> Series:
    """The picture of a file, of the model's size and in memory.

    Args:
        paths: from `formats.find_inputs`.
        size: (H, W) of the model.
        policy: whether a gray picture is read as red, green and blue, and how one of another size is interpolated.

    Raises:
        DataError: a clip, or no picture at all.
        GridError: see `fitted`.
    """
    options = formats.ReadOptions(color="rgb", gray_to_rgb=policy.gray_to_rgb)
    series = formats.open_series(paths, options)[-1]
    if not kinds.of(series).pictures or series.sizes["time"] != 1:
        what = f"{series.sizes['time']} frames of {', '.join(names(series))}"
        raise DataError(f"{paths[0]} holds {what}", "one picture, which a scene begins with", "give a PNG or JPEG")
    return fitted(series, size, policy.regrid).load()


def picture_sha256(picture: Series) -> str:
    """Of the pixels that a model is given."""
    return hashlib.sha256(np.ascontiguousarray(picture.values, np.float32).tobytes()).hexdigest()


def origin_of(
    model: LoadedScenes, picture: Series, title: str, stage: Stage, seed: int, camera: str, view: str = ""
) -> dict[str, str]:
    """Global attributes of what is made of a picture: its origin, and all that is needed to make it again.

    Args:
        model: that made it.
        picture: that the model was given.
        title: of the output.
        stage: the cameras.
        seed: of the future.
        camera, view: the cameras, as they were asked for.
    """
    made = origin(model, picture, title, "Gaussians that move in space", (), command_line(), DIFF4SPLAT)
    made |= {"pdr_input_sha256": picture_sha256(picture), CAMERA: camera} | ({"pdr_view": view} if view else {})
    made |= {"pdr_cameras": json.dumps(stage.seen.to_json()), "pdr_seed": str(seed)}
    return {key: printable(value) for key, value in made.items()}


def film(model: LoadedScenes, picture: Series, stage: Stage, drawing: Drawing) -> Film:
    """The film of a picture of the model's size; without members, that of one future.

    Raises:
        UsageError: a model without a generator of futures.
    """
    import torch

    count = max(1, drawing.count)
    seeds = seeds_of(drawing.seed, count, [PICTURED])
    _check_members(model, count)
    with torch.inference_mode():
        scenes = [scene_of(model, picture, stage.path, seed) for seed in seeds[:, 0]]
        drawn = [_drawn(model, scene, stage.seen) for scene in scenes]
        ways = _ways(model, scenes[0], stage)
    times = stage.seen.times * model.card.config.data.out_steps * model.card.step.count
    frames, depth = (np.stack(each) for each in zip(*drawn, strict=True))
    like = make_like(picture, frames[0], times=times)
    files = picture.attrs["files"]
    far = make_series(depth[0], times, DEPTH, {}, kind="video", files=files).assign_attrs(may_lack=True)
    if not drawing.count:
        return Film(picture, like, far, ways)
    several = (drawing.reduced(with_members(like, frames)), drawing.reduced(with_members(far, depth)))
    return Film(picture, *several, ways)


def _check_members(model: LoadedScenes, count: int) -> None:
    from pdr_cli.models.scenes.latents import NoLatents

    if count > 1 and isinstance(model.network.source, NoLatents):
        raise UsageError(
            f"--members {count}: {model.label} was trained without latents, and has one future of a picture"
        )


def scene_of(model: LoadedScenes, picture: Series, path: CameraPath, seed: int) -> Scene:
    """The scene that a picture of the model's size, a path at the times of training and a seed give.

    Raises:
        UsageError: a model without a generator of futures.
    """
    import torch

    first = torch.from_numpy(np.ascontiguousarray(picture.values, np.float32)).to(model.device) / WHITE
    seeds = torch.tensor([int(seed)], device=model.device)
    try:
        with torch.inference_mode():
            return model.network.future(first, _camera(path, model.device), seeds)
    except ConfigError as error:
        way_out = "train one that does, with --preset scenes-small"
        raise UsageError(f"{model.label}: {error.found}", error.expected, way_out) from error


def _drawn(model: LoadedScenes, scene: Scene, path: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    """Frames [T, 3, H, W] of values 0 to 255, and their depth [T, 1, H, W]."""
    import torch

    from pdr_cli.models.scenes.losses import DRAWN
    from pdr_cli.models.scenes.scene import seen

    frames, depths = [], []
    for start in range(0, len(path), AT_ONCE):
        which = slice(start, start + AT_ONCE)
        part = CameraPath(path.focal, path.times[which], path.poses[which])
        view = seen(scene.at(part.times.tolist()), _camera(part, model.device), model.card.size)
        frames.append(WHITE * view.features[0].clamp(0, 1))
        depths.append(torch.where(view.weight > DRAWN, view.depth, torch.nan)[0, :, None])
    return torch.cat(frames).cpu().numpy(), torch.cat(depths).cpu().numpy()


def _ways(model: LoadedScenes, scene: Scene, stage: Stage) -> np.ndarray:
    """See `Film.ways`; of the Gaussians that are drawn."""
    from pdr_cli.splat.camera import project

    both = scene.at([0.0, float(stage.seen.times[-1])])
    first = _camera(CameraPath(stage.path.focal, stage.path.times[:1], stage.path.poses[:1]), model.device)
    at = project(both.mean, both.scale, both.quaternion, first, model.card.size).centre[0]  # [2, N, 2]
    return at[:, (both.opacity[0] > 0).all(dim=0)].transpose(0, 1).cpu().numpy()


def _camera(path: CameraPath, device: torch.device) -> Camera:
    """A path as networks take it, with a dimension of one scene."""
    import torch

    from pdr_cli.splat.camera import Camera

    poses = torch.from_numpy(path.poses.astype(np.float32))[None].to(device)
    return Camera(poses, torch.tensor([path.focal], dtype=torch.float32, device=device))


def side_by_side(frames: Series) -> Series:
    """The members of a film beside each other, as one picture that is so many times as wide."""
    if MEMBERS not in frames.dims:
        return frames
    values: Sequence[np.ndarray] = list(frames.values)
    return make_like(frames.isel(realization=0, drop=True), np.concatenate(values, axis=-1))
