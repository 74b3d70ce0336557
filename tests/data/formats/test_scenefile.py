"""Files of scenes: written and read back, written by others, and refused in one line where they are wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats, scene_samples
from pdr_cli.data.formats import scenefile
from pdr_cli.data.scenes import Size
from pdr_cli.errors import DataError, StorageError
from tests.builders import scenes_file, traffic_file
from tests.reliability.test_damaged_files import overwritten

SIZE = Size(2, 3, 20, 24)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return scenes_file(tmp_path / "s.h5", size=SIZE)


def test_scenes_come_back_as_they_were_made(path: Path) -> None:
    file = scenefile.read(path)
    assert (len(file), file.size, file.title) == (4, SIZE, "test scenes")
    assert [list(numbers) for numbers in file.parts.values()] == [[0, 1], [2], [3]]
    for number in range(4):
        made, back = scene_samples.make(0, number, SIZE), file.scene(number)
        for name in ("image", "depth", "poses", "times", "track", "moving"):
            assert np.array_equal(getattr(back, name), getattr(made, name)), name
            assert getattr(back, name).dtype == getattr(made, name).dtype, name
        assert back.focal == pytest.approx(made.focal)


def test_the_layout_is_that_of_the_docs(path: Path) -> None:
    with h5py.File(path) as file:
        shapes = {name: (file[name].shape, file[name].dtype.str) for name in file}
        assert shapes == {
            "image": ((4, 2, 3, 20, 24, 3), "|u1"),
            "depth": ((4, 2, 3, 20, 24), "<f4"),
            "camera": ((4, 2, 3, 4, 4), "<f4"),
            "focal": ((4,), "<f4"),
            "track": ((4, 3, 3, 20, 24), "<f4"),
            "moving": ((4, 20, 24), "|b1"),
            "time": ((3,), "<f8"),
        }
        assert file.attrs["pdr_scenes"] == 1
        # A view of a scene is a chunk, so that one is read without its neighbours.
        assert (file["image"].chunks, file["track"].chunks) == ((1, 1, 3, 20, 24, 3), (1, 3, 3, 20, 24))


def test_the_same_scenes_give_the_same_bytes(tmp_path: Path) -> None:
    files = [scenes_file(tmp_path / name) for name in ("a.h5", "b.h5")]
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == 1


def test_a_failure_while_scenes_are_made_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_text("old")

    def failing() -> Any:
        yield scene_samples.make(0, 0, SIZE)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        scenefile.write(tmp_path / "s.h5", failing(), 2, {})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("s.h5", "old")]


def test_what_a_disk_did_not_keep_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = h5py.Dataset.__setitem__

    def lossy(data: Any, place: Any, values: Any) -> None:
        put(data, place, values & 0xFE if data.dtype == np.uint8 else values)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", lossy)
    with pytest.raises(StorageError, match="read back differently"):
        scenes_file(tmp_path / "s.h5")
    assert not list(tmp_path.iterdir())


def test_numbers_of_other_types_are_read(path: Path) -> None:
    """As other tools write them: float64, big endian, uint8 in place of bool, no times, text of variable length."""
    before = scenefile.read(path).scene(1)
    with h5py.File(path, "r+") as file:
        for name, dtype in (("depth", ">f8"), ("camera", "f8"), ("track", ">f4"), ("moving", "u1"), ("focal", "f8")):
            values = file[name][:].astype(dtype)
            del file[name]
            file[name] = values
        del file["time"]
        file.attrs["title"] = "scenes of others"
    file = scenefile.read(path)
    back = file.scene(1)
    assert file.title == "scenes of others"
    types = [getattr(back, name).dtype for name in ("depth", "poses", "track", "moving")]
    assert types == [np.float32, np.float32, np.float32, bool]
    assert np.array_equal(back.depth, before.depth)
    assert np.array_equal(back.moving, before.moving)
    assert back.times.tolist() == [0, 0.5, 1]


def without(name: str) -> Callable[[Any], None]:
    return lambda file: file.__delitem__(name)


def replaced(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        values = change(file[name][:])
        del file[name]
        file[name] = values

    return edit


def put(name: str, place: Any, value: float) -> Callable[[Any], None]:
    return lambda file: file[name].__setitem__(place, value)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (without("track"), "has no data set track; expected track [S, T, 3, H, W]"),
        (lambda f: [f.__delitem__(n) for n in ("focal", "moving")], "has no data set focal, moving"),
        (replaced("depth", lambda v: v[:, :1]), "depth has the shape (4, 1, 3, 20, 24); expected depth [S, V, T, H, W] as"),
        (replaced("track", lambda v: np.moveaxis(v, 2, -1)), "track has the shape (4, 3, 20, 24, 3)"),
        (replaced("image", lambda v: v[..., 0]), "image has the shape (4, 2, 3, 20, 24); expected image [S, V, T, H, W, 3]"),
        (replaced("image", lambda v: v / 255), "image has the type float64; expected uint8"),
        (replaced("image", lambda v: v[:0]), "image has the shape (0, 2"),
        (replaced("depth", lambda v: v.astype("i4")), "depth has the type int32; expected float32"),
        (replaced("camera", lambda v: v[..., :3, :]), "camera has the shape (4, 2, 3, 3, 4)"),
        (put("camera", (2, 1, 1, 0, 0), 3), "scene 2, view 1: world_to_camera of frame 1 is not a rotation"),
        (put("camera", (3, 0, 0, 2, 3), 1), "scene 3, view 0: world_to_camera of the first frame differs"),
        (put("camera", (0, 0, 1, 0, 3), np.nan), "scene 0, view 0: world_to_camera of frame 1 holds NaN"),
        (put("focal", 2, 0), "scene 2: focal length 0"),
        (put("time", 1, 1.0), "the times do not increase: 1 of frame 1 is followed by 1"),
        (put("time", slice(None), [1, 0.5, 0]), "the times do not increase: 1 of frame 0 is followed by 0.5"),
        (replaced("time", lambda v: v[:2]), "time has the shape (2,)"),
        (lambda f: f.attrs.__delitem__("pdr_scenes"), "has no attribute pdr_scenes; expected pdr_scenes = 1"),
        (lambda f: f.attrs.__setitem__("pdr_scenes", 2), "pdr_scenes is 2; expected 1"),
    ],
)  # fmt: skip
def test_a_file_of_another_layout_is_refused_in_one_line(path: Path, edit: Callable[[Any], None], what: str) -> None:
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(DataError) as refused:
        scenefile.read(path)
    line = str(refused.value)
    assert (what in line, str(path) in line, "\n" in line) == (True, True, False), line


def test_a_wrong_scene_is_refused_when_it_is_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["depth"][1, 0, 0, 5, 6] = np.nan
    file = scenefile.read(path)
    file.scene(0)
    with pytest.raises(DataError, match="scene 1: 1 depths are not positive numbers, the first is nan in view 0"):
        file.scene(1)


def test_damage_is_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["depth"].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        scenefile.read(path).scene(0)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        scenefile.read(path)


def test_a_list_of_strings_in_which_the_library_would_never_end_is_found(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["title"] = "of any length"
    assert scenefile.read(path).title == "of any length"
    # The first object of the heap begins 16 bytes behind its mark; one of no length is read for ever.
    for behind, length in ((16, 2), (24, 8)):
        overwritten(path, b"GCOL", bytes(length), behind=behind)
    with pytest.raises(DataError, match="the list of strings at byte"):
        scenefile.read(path)
    with pytest.raises(DataError, match="the list of strings at byte"):
        formats.detect(path)


def test_scenes_are_told_from_traffic_and_are_no_series(path: Path, tmp_path: Path) -> None:
    assert formats.detect(path) == "scenes"
    assert formats.detect(traffic_file(tmp_path / "t.h5")) == "hdf5"
    with pytest.raises(DataError, match=r"holds scenes .* expected fields, traffic or clips"):
        formats.open_series([path])


def test_scenes_that_xarray_wrote_are_scenes(path: Path, tmp_path: Path) -> None:
    """With dimension scales, the mark as an array, bool as int8, and a data set more."""
    before, names = scenefile.read(path), ("image", "depth", "track", "moving")
    made = {name: np.stack([getattr(before.scene(n), name) for n in range(4)]) for name in names}
    made |= {"camera": before.poses, "focal": before.focal, "index": np.arange(4)}
    dims = {"image": "svtyxc", "depth": "svtyx", "track": "stkyx", "moving": "syx", "camera": "svtij"}
    data = xr.Dataset({name: (list(dims.get(name, "s")), values) for name, values in made.items()})
    data.assign_attrs(pdr_scenes=1, title="of xarray").to_netcdf(tmp_path / "x.nc")
    assert formats.detect(tmp_path / "x.nc") == "scenes"
    back = scenefile.read(tmp_path / "x.nc")
    assert (len(back), back.size, back.title) == (4, SIZE, "of xarray")
    assert np.array_equal(back.scene(2).track, before.scene(2).track)
