"""The answer of `pdr predict` for a model of scenes: a film of a picture, and the depth of its frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import cameras, formats
from pdr_cli.data.formats import cf, stored
from pdr_cli.data.formats import frames as pictures
from pdr_cli.data.scenes import KIND, WHITE
from pdr_cli.data.series import Series, names
from pdr_cli.errors import UsageError
from pdr_cli.inference import scenes as models
from pdr_cli.inference.filming import Film, Stage, film, origin_of, picture_of, picture_sha256, side_by_side
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.inference.provenance import numbers_sha256
from pdr_cli.inference.request import Request, changed
from pdr_cli.inference.scenes import LoadedScenes
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import Header
from pdr_cli.system.urls import RemotePath

# Options that hold for films; of `policy` those of `MENDED`.
HELD = {
    *("arguments", "output", "models", "drawing", "between", "steps", "policy", "filming", "compress", "preview"),
    *("skip_existing", "no_clobber", "wait", "fallback", "device", "trust"),
}
MENDED = {"regrid", "gray_to_rgb"}
TITLE = "A picture and what may follow it, filmed by pdr; Gaussians of a model of a toy world"
UNEVEN = 1e-3  # of the spacing of frames, that video does not show


@dataclass(frozen=True)
class Answer:
    """A film that was written.

    Args:
        model: that made it.
        film: the film.
        stage: its cameras.
    """

    model: LoadedScenes
    film: Film
    stage: Stage


def is_for(request: Request) -> bool:
    """Whether a request is for a film: its model is one of scenes, and it is given a picture, or a path.

    Raises:
        UsageError: paths of cameras for another model.
    """
    paths, given = request.paths, request.filming.given
    local = len(paths) == 1 and not isinstance(paths[0], RemotePath)
    if not given and not (local and pictures.is_picture(paths[0])):
        return False
    header = _header(request)
    if header.card.kind == KIND:
        return True
    if given:
        raise UsageError(
            f"{given[0]} is for models of moving scenes in space, and the model forecasts {header.card.kind}",
            "one of the preset scenes-small",
        )
    return False


def check(request: Request) -> None:
    """Check the options before any work is done; see `Request.check`.

    Raises:
        UsageError: options that films do not have, or outputs that hold no film.
    """
    others = (changed(request) - HELD) | (changed(request.policy, InputPolicy()) - MENDED)
    if others:
        option = request.finer.option or f"--{sorted(others)[0].replace('_', '-')}"
        raise UsageError(
            f"films have no {option}",
            way_out="pdr predict --help names what holds for films",
        )
    if len(request.models) > 1:
        raise UsageError(f"{len(request.models)} models for one film", "one -m")
    request.check_files()
    depth = request.filming.depth
    if depth is not None:
        if not formats.of_output(depth).gridded:
            raise UsageError(f"--depth {depth}: depth is numbers", f"one of {', '.join(formats.outputs(gridded=True))}")
        formats.check_output(depth, [*request.paths, request.output])


def is_up_to_date(request: Request) -> bool:
    """True if all outputs exist and answer the request."""
    if not all(target.exists() for target in request.targets):
        return False
    header = _header(request)
    stage = _stage(request, header)
    identity = _identity(request, header, stage, _open(request, header))
    files = [request.output, *([request.filming.depth] if request.filming.depth else [])]
    return all(stored.provenance(path).get("pdr_request_id") == identity for path in files)


def answer(request: Request) -> Answer:
    """Film, and write the film and the depth of its frames.

    Raises:
        PdrError: no picture that the model can use, cameras that are not sound, or an output that cannot be written.
    """
    model = request.read_model(lambda path: models.load(path, request.device))
    stage = _stage(request, model.file)
    picture = _open(request, model.file)
    made = film(model, picture, stage, request.drawing)
    frames = made.frames if formats.of_output(request.output).uncertain else side_by_side(made.frames)
    identity = _identity(request, model.file, stage, picture)
    for series, path, ranges in (
        (frames, request.output, {name: [0, WHITE] for name in names(frames)}),
        (made.depth, request.filming.depth, {"depth": [0, _farthest(model, stage)]}),
    ):
        if path is not None:
            about = _attributes(request, model, picture, stage) | {
                "pdr_request_id": identity,
                stored.HASH: numbers_sha256(series),
                "pdr_plausible": json.dumps({cf.legal_name(name): ends for name, ends in ranges.items()}),
            }
            formats.write(series, path, about, compress=request.compress)
    return Answer(model, made, stage)


def _farthest(model: LoadedScenes, stage: Stage) -> float:
    """A depth that no Gaussian should exceed: twice that of the farthest at time 0, and as far as a camera stands away."""
    assert model.card.config.scene is not None  # as of every model of scenes
    away = float(np.linalg.norm(cameras.centres(stage.seen.poses), axis=-1).max())
    return 2 * model.card.config.scene.far + away


def _header(request: Request) -> Header:
    return request.read_model(modelfile.read_header)


def _stage(request: Request, header: Header) -> Stage:
    """The cameras of a request.

    Raises:
        UsageError: frames at uneven times, which video shows evenly.
    """
    stage = request.filming.stage(header.card, request.steps, request.between)
    spacing = np.diff(stage.seen.times)
    even = len(spacing) < 2 or float(np.ptp(spacing)) <= UNEVEN * float(spacing.mean())
    if not even and formats.of_output(request.output).name == "video":
        raise UsageError(
            f"the frames of the cameras are {spacing.min():g} to {spacing.max():g} apart, and {request.output.suffix} shows "
            "them evenly",
            way_out=f"write {', '.join(formats.outputs(gridded=True))}, or take even times",
        )
    return stage


def _open(request: Request, header: Header) -> Series:
    """The picture of a request; see `picture_of`."""
    return request.when_ready(lambda: picture_of(request.paths, header.card.size, request.policy))


def _attributes(request: Request, model: LoadedScenes, picture: Series, stage: Stage) -> dict[str, str]:
    asked, seed = request.filming, request.drawing.seed
    return origin_of(model, picture, TITLE, stage, seed, str(asked.camera), asked.view or "")


def _identity(request: Request, header: Header, stage: Stage, picture: Series) -> str:
    """SHA-256 of all that a film depends on, and of the formats of its files."""
    depth = request.filming.depth
    parts = {
        "model": header.sha256,
        "model_format": modelfile.FORMAT_VERSION,
        "output": [request.output.suffix.lower(), request.compress, depth and depth.suffix.lower()],
        "picture": picture_sha256(picture),
        "cameras": [stage.path.to_json(), stage.seen.to_json()],
        "members": [request.drawing.count, request.drawing.seed, request.drawing.mean],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
