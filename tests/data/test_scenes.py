"""What a sound scene is, and how scenes are divided."""

from dataclasses import replace

import numpy as np
import pytest

from pdr_cli.data import cameras, scene_samples, scenes
from pdr_cli.data.scenes import Scene, Size
from pdr_cli.errors import DataError

SIZE = Size(views=2, frames=3, height=20, width=24)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_samples.make(0, 0, SIZE)


@pytest.mark.parametrize(
    ("count", "parts"), [(240, (192, 24, 24)), (11, (8, 1, 2)), (10, (8, 1, 1)), (4, (2, 1, 1)), (3, (1, 1, 1))]
)
def test_scenes_are_divided_80_10_10_in_order_and_no_part_is_empty(count: int, parts: tuple[int, ...]) -> None:
    split = scenes.split(count, "s.h5")
    assert [len(split[name]) for name in ("train", "val", "test")] == list(parts)
    assert [n for numbers in split.values() for n in numbers] == list(range(count))


def test_two_scenes_are_too_few() -> None:
    with pytest.raises(DataError, match=r"s\.h5 holds 2 scenes; expected 3 or more"):
        scenes.split(2, "s.h5")


def changed(scene: Scene, name: str, place: object, value: float) -> Scene:
    values = vars(scene)[name].copy()
    values[place] = value
    return replace(scene, **{name: values})


@pytest.mark.parametrize(
    ("name", "place", "value", "what"),
    [
        ("depth", (1, 2, 3, 4), np.nan, "1 depths are not positive .* nan in view 1, frame 2, row 3, column 4"),
        ("depth", (0, 0, 0, 0), 0, "the first is 0 in view 0, frame 0"),
        ("depth", (0, 1, 0, 0), np.inf, "the first is inf"),
        ("track", (1, 0, 2, 2), np.nan, "1 numbers of track are not finite"),
        ("track", (0, 2), 3.0, "track of the first frame is 3 units"),
        ("track", (1, 0, 0, 0), 0.5, "track moves a point by 0.5 units that is still"),
        ("poses", (1, 2, 0, 0), 2.0, "scene 7, view 1: world_to_camera of frame 2 is not a rotation"),
        ("poses", (0, 0, 2, 3), 1.0, "view 0: world_to_camera of the first frame differs from the identity by 1"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_right_are_refused(
    scene: Scene, name: str, place: object, value: float, what: str
) -> None:
    scenes.check(scene, "scene 7")
    with pytest.raises(DataError, match=what):
        scenes.check(changed(scene, name, place, value), "scene 7")


def test_only_the_first_view_defines_the_world(scene: Scene) -> None:
    """The second camera of a pair stands beside the first."""
    scenes.check(changed(scene, "poses", (1, 0, 0, 3), -0.1), "scene 7")


def test_a_point_is_projected_where_its_ray_came_from(scene: Scene) -> None:
    place, depth = scenes.project(scene, scenes.points(scene, 0), 0, 0)
    rows, columns = np.mgrid[: SIZE.height, : SIZE.width] + 0.5
    assert np.allclose(place, np.stack([rows, columns], axis=-1))
    assert np.allclose(depth, scene.depth[0, 0])


def test_the_focal_length_is_counted_in_halves_of_the_shorter_side() -> None:
    # With a focal length of 1 the ray at 45 degrees passes the edge of the shorter side, 10 pixels from the centre.
    ray = scenes.rays(SIZE, 1.0)
    assert ray[0, 0].tolist() == pytest.approx([-11.5 / 10, -9.5 / 10, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: replace(s, track=-s.track),
        lambda s: replace(s, track=s.track[:, [1, 0, 2]]),
        lambda s: replace(s, depth=np.concatenate([s.depth[:1], 0.5 * s.depth[1:]])),
        lambda s: replace(s, depth=np.concatenate([s.depth[:1], 2 * s.depth[1:]])),
        lambda s: replace(s, poses=np.linalg.inv(s.poses)),
    ],
    ids=["sign", "axes", "too near", "too far", "camera to world"],
)
def test_tracks_that_do_not_fit_the_depths_are_found(wrong: object) -> None:
    many = [scene_samples.make(0, number, SIZE._replace(height=40, width=40)) for number in range(4)]
    assert all(scenes.agreement(one).fits for one in many)
    assert not all(scenes.agreement(wrong(one)).fits for one in many)  # type: ignore[operator]


def test_points_behind_a_camera_hide_nothing(scene: Scene) -> None:
    gone = scene.track.copy()
    gone[1:, 2] = np.where(scene.moving, -20, 0)
    assert scenes.agreement(replace(scene, track=gone)).in_front == 0


def test_without_moving_points_the_still_ones_decide(scene: Scene) -> None:
    frozen = replace(scene, track=np.zeros_like(scene.track), moving=np.zeros_like(scene.moving))
    assert scenes.agreement(frozen).moving == 1


def test_cameras_are_checked_before_the_scenes_are_read(scene: Scene) -> None:
    with pytest.raises(DataError, match="focal length -1"):
        scenes.check_cameras(scene.poses, -1.0, "s.h5")
    scenes.check_cameras(scene.poses.astype(np.float32), cameras.FOCAL, "s.h5")
