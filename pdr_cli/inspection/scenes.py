"""What a file of scenes holds, and whether its depths, cameras and tracks fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import cameras, scenes
from pdr_cli.data.formats import scenefile
from pdr_cli.data.formats.scenefile import SceneFile
from pdr_cli.errors import DataError, PdrError
from pdr_cli.inspection.findings import Finding

LOOKED_AT = 64  # scenes that are read to describe a file, evenly spaced
AGAIN = "make the file again, or get it again"


def is_scenes(path: Path) -> bool:
    """Whether a path is a file of scenes."""
    return path.is_file() and scenefile.Scenes().matches(path)


def describe(path: Path) -> dict[str, Any]:
    """What a file of scenes holds, in words.

    Raises:
        DataError: it cannot be used at all.
    """
    file = scenefile.read(path)
    size, moving, low, high = file.size, 0.0, np.inf, 0.0
    chosen = np.unique(np.linspace(0, len(file) - 1, LOOKED_AT).round().astype(int))
    for number in chosen:
        scene = file.scene(int(number))
        moving += float(scene.moving.mean()) / len(chosen)
        low, high = min(low, float(scene.depth.min())), max(high, float(scene.depth.max()))
    part = "" if len(chosen) == len(file) else f" of {len(chosen)} scenes"
    return {
        **({"title": file.title} if file.title else {}),
        "scenes": len(file),
        "parts": _parts(file),
        "views": size.views,
        "frames": f"{size.frames}, times {file.times[0]:g} to {file.times[-1]:g}",
        "size": f"{size.height} x {size.width}",
        "focal": _focal(file.focal),
        "cameras": _travel(file.poses),
        "depth": f"{low:.4g} to {high:.4g} scene units{part}",
        "moving": f"{100 * moving:.1f} % of the pixels of first frames{part}",
    }


def findings(path: Path) -> Iterator[Finding]:
    """Everything found in a file of scenes, read completely."""
    try:
        file = scenefile.read(path)
        yield Finding(
            "ok", f"{len(file)} scenes of {file.size.views} views and {file.size.frames} frames; cameras are sound"
        )
        found = [scenes.agreement(file.scene(number)) for number in range(len(file))]
    except PdrError as error:
        yield Finding("problem", str(error.replace(way_out="")), error.way_out or AGAIN)
        return
    yield Finding("ok", "depths and tracks are finite")
    wrong = [number for number, one in enumerate(found) if not one.fits]
    if wrong:
        first = found[wrong[0]]
        yield Finding(
            "problem",
            f"the tracks of {len(wrong)} of {len(file)} scenes do not fit their depths, first scene {wrong[0]}: "
            f"{100 * first.in_front:.1f} % of the tracked points lie before the surface that is seen, {100 * first.still:.0f} % "
            f"of the still and {100 * first.moving:.0f} % of the moving ones at it",
            "check the signs and units of track, depth and camera; docs/scenes.md says what they are",
        )
        return
    share = 100 * np.mean([(one.still, one.moving) for one in found], axis=0)
    yield Finding(
        "ok", f"tracks fit the depths: {share[0]:.0f} % of still and {share[1]:.0f} % of moving points in view are seen"
    )


def _parts(file: SceneFile) -> str:
    try:
        return ", ".join(f"{len(numbers)} {name}" for name, numbers in file.parts.items())
    except DataError as error:
        return f"none: {error.expected} are needed"


def _focal(focal: np.ndarray) -> str:
    low, high = focal.min(), focal.max()
    degrees = 2 * np.degrees(np.arctan(1 / low))
    return f"{low:.4g}" + (f" to {high:.4g}" if high > low else "") + f" half frames, a view of {degrees:.0f} degrees"


def _travel(poses: np.ndarray) -> str:
    """How far cameras [S, V, T, 4, 4] turn and move from the first one of their scene."""
    turned = np.degrees(cameras.angle(poses[..., :3, :3]).max())
    moved = np.linalg.norm(cameras.centres(poses), axis=-1).max()
    return f"turn by up to {turned:.0f} degrees and move by up to {moved:.2g} scene units"
