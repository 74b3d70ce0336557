"""Camera paths: where a camera stands at each time, how a path is named, and which paths are sound.

x points right, y down and z forward. The world is the camera of the first frame. A pose is a matrix [4, 4] that takes points
of the world to points of the camera. Times run from 0 to 1. The focal length is counted in half frames: a point (x, y, z)
before the camera lies `focal * x / z` halves of the picture's shorter side right of its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdr_cli.errors import DataError, UsageError, did_you_mean

FOCAL = 1.2  # half frames: a view of 80 degrees
DISTANCE = 4.0  # scene units from the first camera to the point that an orbit turns about
TOLERANCE = 1e-4  # of the nine numbers of a rotation, and of the first camera; float32 rounds by 1e-7
WIDEST = 180.0  # degrees of an orbit
RIGHT, DOWN = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])


@dataclass(frozen=True)
class CameraPath:
    """A camera that moves.

    Args:
        focal: in half frames.
        times: [T], within 0..1.
        poses: [T, 4, 4] world to camera.
    """

    focal: float
    times: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def to_json(self) -> dict[str, Any]:
        """As a camera file holds it."""
        each = zip(self.times.tolist(), self.poses.tolist(), strict=True)
        return {"focal": self.focal, "frames": [{"time": time, "world_to_camera": pose} for time, pose in each]}


def rotation(axis: np.ndarray, radians: float) -> np.ndarray:
    """The rotation [3, 3] about a unit vector, anticlockwise where it points to the viewer (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(radians) * cross + (1 - math.cos(radians)) * cross @ cross


def angle(rotations: np.ndarray) -> np.ndarray:
    """By how much rotations [..., 3, 3] turn, in radians from 0 to pi."""
    cosine = (np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2
    return np.arccos(cosine.clip(-1, 1))


def centres(poses: np.ndarray) -> np.ndarray:
    """Where cameras [..., 4, 4] stand in the world: [..., 3]."""
    return -np.einsum("...ji,...j->...i", poses[..., :3, :3], poses[..., :3, 3])


def arc(axis: np.ndarray, radians: np.ndarray, forward: np.ndarray, distance: float = DISTANCE) -> np.ndarray:
    """Poses [T, 4, 4] of a camera on an arc.

    Args:
        axis: unit vector through the point at which the first camera looks, normal to z.
        radians: [T] by how much the camera has turned about that point.
        forward: [T] by how much it has come nearer to it.
        distance: from the first camera to the point.
    """
    poses = np.tile(np.eye(4), (len(radians), 1, 1))
    point = np.array([0, 0, distance])
    for pose, turned, nearer in zip(poses, radians, forward, strict=True):
        pose[:3, :3] = rotation(axis, turned)
        pose[:3, 3] = point - pose[:3, :3] @ point - [0, 0, nearer]
    return poses


def even_times(frames: int) -> np.ndarray:
    """Times [T] from 0 to 1; 0 of a single frame."""
    return np.linspace(0, 1, frames)


def orbit(degrees: float, times: np.ndarray, focal: float = FOCAL, distance: float = DISTANCE) -> CameraPath:
    """Turn about the point `distance` before the first camera; positive degrees lead the camera to the right."""
    return CameraPath(focal, times, arc(DOWN, np.radians(degrees) * times, np.zeros(len(times)), distance))


def dolly(units: float, times: np.ndarray, focal: float = FOCAL, distance: float = DISTANCE) -> CameraPath:
    """Move straight ahead by `units` of the scene, or back if they are negative."""
    return CameraPath(focal, times, arc(DOWN, np.zeros(len(times)), units * times, distance))


def still(times: np.ndarray, focal: float = FOCAL) -> CameraPath:
    """Stand where the first camera stands."""
    return dolly(0, times, focal)


def at(path: CameraPath, times: np.ndarray) -> CameraPath:
    """The path at other times [n]: in between, cameras turn and move evenly; before and after it, they stand."""
    if len(path) == 1:
        return CameraPath(path.focal, times, np.repeat(path.poses, len(times), axis=0))
    from scipy.spatial.transform import Rotation, Slerp

    within = np.clip(times, path.times[0], path.times[-1])
    places = centres(path.poses)
    stood = np.stack([np.interp(within, path.times, places[:, axis]) for axis in range(3)], axis=-1)
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = Slerp(path.times, Rotation.from_matrix(path.poses[:, :3, :3]))(within).as_matrix()
    poses[:, :3, 3] = -np.einsum("tij,tj->ti", poses[:, :3, :3], stood)
    return CameraPath(path.focal, times, poses)


WAYS = {"orbit": "DEGREES", "dolly": "UNITS", "still": ""}  # {name of a path: what follows its colon}
FORMS = tuple(name + (f":{argument}" if argument else "") for name, argument in WAYS.items())


def named(
    text: str, times: np.ndarray, focal: float = FOCAL, distance: float = DISTANCE, option: str = "--camera"
) -> CameraPath:
    """The path that `orbit:DEGREES`, `dolly:UNITS` or `still` names.

    Args:
        text: name of the path, which runs from time 0 to 1.
        times: at which cameras are wanted, [T].
        focal: in half frames.
        distance: from the first camera to the point that it looks at, in scene units.
        option: that gave the name, for messages.

    Raises:
        UsageError: another name, no number, or one too large: an orbit of more than half a turn, or a dolly to the point or
            behind it.
    """
    name, colon, argument = text.partition(":")
    given = f"{option} {text}"
    if name not in WAYS:
        raise UsageError(f"{given} is neither a file nor a path.{did_you_mean(name, WAYS)}", _forms())
    if name == "still":
        if colon:
            raise UsageError(f"{given}: still takes no number", "still")
        return still(times, focal)
    number = _number(given, argument)
    if name == "orbit":
        if abs(number) > WIDEST:
            raise UsageError(f"{given} is more than half a turn", f"-{WIDEST:g} to {WIDEST:g} degrees")
        return orbit(number, times, focal, distance)
    if number >= distance:
        raise UsageError(f"{given} leads to the point looked at, or behind it", f"less than {distance:g} units")
    return dolly(number, times, focal, distance)


def _forms() -> str:
    return f"a camera file (.json), or one of {', '.join(FORMS)}"


def _number(given: str, argument: str) -> float:
    try:
        number = float(argument)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{given}: {argument!r} is not a number", ", ".join(FORMS))
    return number


def check_focal(focal: float, where: str) -> None:
    """Refuse a focal length that is not positive and finite (DataError)."""
    if not (math.isfinite(focal) and focal > 0):
        raise DataError(f"{where}: focal length {focal:g}", "a positive number of half frames")


def check_times(times: np.ndarray, where: str) -> None:
    """Refuse times [T] that are not numbers within 0..1, or do not increase (DataError)."""
    outside = ~((times >= 0) & (times <= 1))
    if outside.any():
        first = int(np.argmax(outside))
        raise DataError(f"{where}: the time of frame {first} is {times[first]:g}", "times from 0 to 1")
    back = np.diff(times) <= 0
    if back.any():
        first = int(np.argmax(back))
        what = f"the times do not increase: {times[first]:g} of frame {first} is followed by {times[first + 1]:g}"
        raise DataError(f"{where}: {what}", way_out="put the frames in the order of their times, each time once")


def check_poses(poses: np.ndarray, where: str) -> None:
    """Refuse poses [T, 4, 4] that are not finite, or not a rotation and a shift.

    Raises:
        DataError: names the first frame.
    """
    rotations, last = poses[:, :3, :3], poses[:, 3]
    off = np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2))
    sound = (
        np.isfinite(poses).all(axis=(1, 2))
        & (off <= TOLERANCE)
        & (np.abs(last - [0, 0, 0, 1]).max(axis=1) <= TOLERANCE)
    )
    mirrored = np.linalg.det(np.where(sound[:, None, None], rotations, np.eye(3))) < 0
    if sound.all() and not mirrored.any():
        return
    frame = int(np.argmin(sound & ~mirrored))
    raise DataError(
        f"{where}: world_to_camera of frame {frame} {_fault(poses[frame], float(off[frame]), bool(mirrored[frame]))}",
        f"a rotation within {TOLERANCE:g} and a shift, [[R, t], [0, 0, 0, 1]]",
        "divide a scale out of the first three columns; a transposed matrix has its shift in the last row",
    )


def _fault(pose: np.ndarray, off: float, mirrored: bool) -> str:
    """What is wrong with a pose."""
    if not np.isfinite(pose).all():
        return "holds NaN or infinite numbers"
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > TOLERANCE:
        return f"has the last row {', '.join(f'{v:g}' for v in pose[3])}"
    if mirrored:
        return "mirrors: its determinant is -1"
    return f"is not a rotation: R·Rᵀ differs from 1 by {off:.2g}"


def check_first(pose: np.ndarray, where: str) -> None:
    """Refuse a first camera [4, 4] that is not the world's (DataError)."""
    off = float(np.abs(pose - np.eye(4)).max())
    if off > TOLERANCE:
        raise DataError(
            f"{where}: world_to_camera of the first frame differs from the identity by {off:.2g}",
            "the first camera as the world",
            "multiply every matrix by the inverse of the first one from the right",
        )


def check(path: CameraPath, where: str, first: bool = True) -> None:
    """Refuse a path that is not sound; `first`: its first camera is to be the world.

    Raises:
        DataError: without frames, or for one of the reasons of the checks above.
    """
    if not len(path):
        raise DataError(f"{where} has no frames", "one frame or more")
    check_focal(path.focal, where)
    check_times(path.times, where)
    check_poses(path.poses, where)
    if first:
        check_first(path.poses[0], where)
