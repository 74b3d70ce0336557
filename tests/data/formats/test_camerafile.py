"""Camera files as other tools write them, and what is refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdr_cli.data import cameras
from pdr_cli.data.formats import camerafile
from pdr_cli.errors import DataError, InputNotFoundError

IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
# A quarter turn to the left with a step back, in whole numbers: x = -z', z = x' + 2.
TURNED = [[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 1]]


def document(**changes: Any) -> dict[str, Any]:
    frames = [{"time": 0, "world_to_camera": IDENTITY}, {"time": 1, "world_to_camera": TURNED}]
    return {"focal": 1, "frames": frames} | changes


def written(folder: Path, content: Any) -> Path:
    path = folder / "left.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_of_whole_numbers_is_read(tmp_path: Path) -> None:
    path = camerafile.read(written(tmp_path, document()))
    assert (path.focal, path.times.tolist()) == (1.0, [0.0, 1.0])
    assert path.poses.tolist() == [IDENTITY, TURNED]


def test_the_example_of_the_docs_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "scenes.md").read_text()
    example = text[text.index('{"focal"') : text.index("The second camera stands")]
    path = camerafile.read(written(tmp_path, example))
    assert (path.focal, path.times.tolist()) == (1.2, [0, 0.5])
    assert cameras.centres(path.poses)[1].tolist() == pytest.approx([0.1, 0, 0])


def test_keys_of_other_tools_spaces_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    content = document(tool="Blender", scene={"fps": 24}) | {
        "frames": [f | {"name": "a"} for f in document()["frames"]]
    }
    text = "\ufeff\n" + json.dumps(content, indent=3) + "\r\n\n"
    assert len(camerafile.read(written(tmp_path, text))) == 2


def test_rotations_rounded_to_float32_or_five_digits_are_read(tmp_path: Path) -> None:
    path = cameras.orbit(20, cameras.even_times(5))
    for poses in (path.poses.astype(np.float32), path.poses.round(5)):
        frames = [{"time": float(t), "world_to_camera": p.tolist()} for t, p in zip(path.times, poses, strict=True)]
        found = camerafile.read(written(tmp_path, document(frames=frames)))
        assert np.allclose(found.poses, path.poses, atol=1e-5)


def frames_of(*, time: Any = 1, pose: Any = None) -> dict[str, Any]:
    second = {"time": time, "world_to_camera": TURNED if pose is None else pose}
    return document(frames=[document()["frames"][0], second])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is not JSON"),
        ("focal: 1.2", "is not JSON"),
        ('{"focal": 1.2, "frames": [', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it holds a list"),
        ("{}", "it is empty"),
        ({"cameras": []}, "it has the keys 'cameras'"),
        (document(frames={}), "its frames are a dict"),
        (document(frames=[]), "has no frames"),
        (document(focal=0), "focal length 0"),
        (document(focal=-1), "focal length -1"),
        (document(focal="50 mm"), "focal is '50 mm'; expected a number"),
        (document(focal=True), "focal is 'True'"),
        (document(focal=float("nan")), "focal length nan"),
        (document(focal=10**400), "focal is '1000"),
        ({"frames": document()["frames"]}, "focal is missing"),
        (document(frames=[7]), "time of frame 0 is missing"),
        (frames_of(time=None), "time of frame 1 is missing"),
        (frames_of(time="1"), "time of frame 1 is '1'"),
        (frames_of(time=0), "times do not increase"),
        (frames_of(time=24), "the time of frame 1 is 24; expected times from 0 to 1"),
        (frames_of(time=float("nan")), "the time of frame 1 is nan"),
        (frames_of(pose=TURNED[:3]), "frame 1 has the shape 3 x 4; expected 4 x 4 numbers"),
        (frames_of(pose=np.ravel(TURNED).tolist()), "frame 1 has the shape 16;"),
        (frames_of(pose=[[1, 0], [0]]), "rows of different lengths"),
        (frames_of(pose={}), "frame 1 is '{}'"),
        (frames_of(pose=[["a"] * 4] * 4), "world_to_camera of frame 1"),
        (frames_of(pose=[[float("inf")] * 4] * 4), "frame 1 holds NaN or infinite"),
        (frames_of(pose=(2 * np.array(TURNED)).tolist()), "frame 1 has the last row 0, 0, 0, 2"),
        (frames_of(pose=np.array(TURNED).T.tolist()), "frame 1 has the last row 0, 0, 2, 1"),
        (document(frames=[{"time": 0, "world_to_camera": TURNED}]), "first frame differs from the identity"),
    ],
)
def test_what_is_not_a_camera_file_is_refused_in_one_line(tmp_path: Path, content: Any, what: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError) as refused:
        camerafile.read(path)
    line = str(refused.value)
    assert (what in line, str(path) in line, "\n" in line) == (True, True, False), line


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "left.json"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match="is not JSON"):
        camerafile.read(path)


def test_an_argument_is_a_file_or_the_name_of_a_path(tmp_path: Path) -> None:
    assert camerafile.names_file(str(written(tmp_path, document())))
    assert camerafile.names_file("none.json")
    assert not camerafile.names_file("orbit:20")
    with pytest.raises(InputNotFoundError):
        camerafile.read(Path("none.json"))


def test_a_view_may_begin_elsewhere_than_the_picture(tmp_path: Path) -> None:
    poses = cameras.orbit(20, cameras.even_times(3)).poses[1:]
    frames = [{"time": k, "world_to_camera": pose.tolist()} for k, pose in enumerate(poses)]
    path = written(tmp_path, document(frames=frames))
    with pytest.raises(DataError, match="first frame differs from the identity"):
        camerafile.read(path)
    assert np.allclose(camerafile.read(path, first=False).poses, poses)
