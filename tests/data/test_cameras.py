"""Camera paths: their geometry, their names, and what is refused."""

import math

import numpy as np
import pytest

from pdr_cli.data import cameras
from pdr_cli.data.cameras import CameraPath, even_times
from pdr_cli.errors import DataError, UsageError

POINT = np.array([0, 0, cameras.DISTANCE, 1])  # that an orbit turns about


def test_a_rotation_turns_one_axis_into_another_and_keeps_its_own() -> None:
    quarter = cameras.rotation(np.array([0, 0, 1.0]), math.pi / 2)
    assert np.allclose(quarter @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(quarter @ [0, 0, 1], [0, 0, 1])


def test_rotations_about_one_axis_add_up_and_say_their_angle() -> None:
    axis = np.array([2, -1, 2]) / 3  # of length 1
    first, second = cameras.rotation(axis, 0.3), cameras.rotation(axis, 0.5)
    assert np.allclose(first @ second, cameras.rotation(axis, 0.8))
    assert np.allclose(first @ first.T, np.eye(3))
    assert np.linalg.det(first) == pytest.approx(1)
    assert cameras.angle(np.stack([first, second])) == pytest.approx([0.3, 0.5])


def test_an_orbit_keeps_its_point_in_the_middle_and_goes_to_the_right() -> None:
    path = cameras.orbit(20, even_times(5))
    seen = path.poses @ POINT
    assert np.allclose(seen, POINT)  # at the same distance, on the axis of every camera
    assert np.degrees(cameras.angle(path.poses[-1, :3, :3])) == pytest.approx(20)
    # On a circle of radius 4: sin(20°) · 4 to the right, and nearer by (1 - cos 20°) · 4.
    turned = math.radians(20)
    assert cameras.centres(path.poses)[-1] == pytest.approx([4 * math.sin(turned), 0, 4 - 4 * math.cos(turned)])
    assert cameras.centres(cameras.orbit(-20, even_times(5)).poses)[-1, 0] == pytest.approx(-4 * math.sin(turned))


def test_a_dolly_goes_ahead_and_does_not_turn() -> None:
    path = cameras.dolly(0.5, even_times(3))
    assert np.allclose(cameras.centres(path.poses), [[0, 0, 0], [0, 0, 0.25], [0, 0, 0.5]])
    assert np.allclose(path.poses[:, :3, :3], np.eye(3))


@pytest.mark.parametrize("text", ["orbit:20", "orbit:-7.5", "dolly:0.4", "dolly:-1", "still"])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_a_named_path_is_sound_and_has_the_frames_and_times_asked_for(text: str, frames: int) -> None:
    path = cameras.named(text, even_times(frames), focal=1.5)
    cameras.check(path, text)
    assert (len(path), path.focal) == (frames, 1.5)
    assert np.array_equal(path.times, np.linspace(0, 1, frames))


def test_names_mean_what_they_say() -> None:
    assert np.array_equal(cameras.named("orbit:20", even_times(4)).poses, cameras.orbit(20, even_times(4)).poses)
    assert np.array_equal(cameras.named("dolly:0.3", even_times(4)).poses, cameras.dolly(0.3, even_times(4)).poses)
    assert np.array_equal(cameras.named("still", even_times(4)).poses, np.tile(np.eye(4), (4, 1, 1)))
    # An orbit about a nearer point is a shorter way by the same angle.
    near, far = (cameras.named("orbit:20", even_times(2), distance=d).poses[1] for d in (2, 4))
    assert np.allclose(2 * near[:3, 3], far[:3, 3])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("orbt:20", "Did you mean 'orbit'"),
        ("left.jso", "neither a file nor a path"),
        ("orbit", "'' is not a number"),
        ("orbit:", "'' is not a number"),
        ("orbit:east", "'east' is not a number"),
        ("orbit:nan", "'nan' is not a number"),
        ("dolly:inf", "'inf' is not a number"),
        ("orbit:200", "more than half a turn; expected -180 to 180 degrees"),
        ("dolly:4", "to the point looked at, or behind it; expected less than 4 units"),
        ("still:3", "still takes no number"),
    ],
)
def test_a_name_that_is_no_path_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        cameras.named(text, even_times(9))


def broken(**changes: object) -> CameraPath:
    path = cameras.orbit(10, even_times(3))
    return CameraPath(**(vars(path) | changes))  # type: ignore[arg-type]


def poses(frame: int, change: object) -> np.ndarray:
    """Poses of an orbit of which one frame is changed."""
    found = cameras.orbit(10, even_times(3)).poses
    found[frame] = change(found[frame])  # type: ignore[operator]
    return found


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (broken(focal=0.0), "focal length 0; expected a positive number"),
        (broken(focal=-1.2), "focal length -1.2"),
        (broken(focal=math.nan), "focal length nan"),
        (broken(times=np.array([0, 0.5, 0.5])), "do not increase: 0.5 of frame 1 is followed by 0.5"),
        (broken(times=np.array([0.5, 0.25, 1])), "do not increase: 0.5 of frame 0 is followed by 0.25"),
        (broken(times=np.array([0, 1, 2])), "the time of frame 2 is 2; expected times from 0 to 1"),
        (broken(times=np.array([0, math.nan, 1])), "the time of frame 1 is nan"),
        (broken(times=np.zeros(0), poses=np.zeros((0, 4, 4))), "has no frames"),
        (broken(poses=poses(1, lambda m: 1.001 * m)), "frame 1 has the last row 0, 0, 0, 1.001"),
        (broken(poses=poses(1, lambda m: m @ np.diag([1.001, 1, 1, 1]))), r"frame 1 is not a rotation: .* by 0\.002"),
        (broken(poses=poses(1, lambda m: m @ np.diag([-1, 1, 1, 1]))), "frame 1 mirrors"),
        (broken(poses=poses(1, lambda m: m.T)), "frame 1 has the last row"),
        (broken(poses=poses(2, lambda m: m * np.nan)), "frame 2 holds NaN"),
        (
            broken(poses=poses(0, lambda m: cameras.orbit(1, even_times(2)).poses[1])),
            "first frame differs from the identity",
        ),
    ],
)
def test_a_path_that_is_not_sound_is_refused(path: CameraPath, what: str) -> None:
    with pytest.raises(DataError, match=what):
        cameras.check(path, "left.json")


def test_rounding_to_float32_is_no_fault() -> None:
    path = cameras.orbit(17, even_times(9))
    cameras.check(CameraPath(path.focal, path.times, path.poses.astype(np.float32)), "left.json")


def test_in_between_a_camera_turns_and_moves_evenly_and_outside_it_stands() -> None:
    path = cameras.orbit(40, np.array([0.2, 0.8]))
    found = cameras.at(path, np.array([0.0, 0.2, 0.5, 0.8, 1.0]))
    assert np.allclose(found.poses[[0, 1]], path.poses[0])
    assert np.allclose(found.poses[[3, 4]], path.poses[1])
    assert np.degrees(cameras.angle(found.poses[2, :3, :3] @ path.poses[0, :3, :3].T)) == pytest.approx(12)
    middle = cameras.centres(path.poses).mean(axis=0)
    assert cameras.centres(found.poses)[2] == pytest.approx(middle)
    cameras.check(found, "found", first=False)
    alone = cameras.at(cameras.still(even_times(1)), even_times(3))
    assert np.array_equal(alone.poses, np.tile(np.eye(4), (3, 1, 1)))
