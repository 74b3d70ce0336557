"""HDF5 files of scenes: `image`, `depth`, `camera`, `focal`, `track` and `moving`, marked by the attribute `pdr_scenes`.

A scene is not a Series: what forecasts fields, traffic or clips refuses these files. They are read scene by scene.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import cameras, scenes
from pdr_cli.data.formats import heaps
from pdr_cli.data.formats.base import COMPRESSION, Format, ReadOptions, beginning
from pdr_cli.data.formats.hdf5 import SIGNATURE
from pdr_cli.data.scenes import Scene, Size
from pdr_cli.data.series import Series
from pdr_cli.errors import DataError, StorageError
from pdr_cli.system import damage
from pdr_cli.system.atomic import atomic_output

MARK, VERSION = "pdr_scenes", 1
SUFFIXES = (".h5", ".hdf5")
# {data set: (its axes, kinds of its numbers, the type that is written)}; S scenes, V views, T frames.
LAYOUT = {
    "image": ("S V T H W 3", "u", np.uint8),
    "depth": ("S V T H W", "f", np.float32),
    "camera": ("S V T 4 4", "f", np.float32),
    "focal": ("S", "f", np.float32),
    "track": ("S T 3 H W", "f", np.float32),
    "moving": ("S H W", "biu", np.bool_),
}
TIMES = "time"  # [T]; without it, frames lie evenly between 0 and 1
WAY_OUT = "docs/scenes.md describes such files, and pdr sample scenes writes one"


class Scenes(Format):
    """Scenes, which have a format to be told from traffic grids in HDF5."""

    name, title = "scenes", "a file of scenes"

    def matches(self, path: Path) -> bool:
        """HDF5 with the mark of scenes, or without it but with pictures, depths and cameras."""
        if beginning(path)[:8] != SIGNATURE:
            return False
        import h5py

        try:
            heaps.check(path)
            with h5py.File(path) as handle:
                return is_scenes(handle)
        except (DataError, *damage.FAILURES):  # damaged, which the format of other HDF5 files reports
            return False

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """Refuse them: they are opened with `read`."""
        raise DataError(
            f"{paths[0]} holds scenes (pictures, depths and cameras)",
            "fields, traffic or clips",
            "pdr inspect and pdr verify read scenes",
        )


def is_scenes(handle: Any) -> bool:
    """True if an open HDF5 file has the mark of scenes, or without it their pictures, depths and cameras."""
    return MARK in handle.attrs or {"image", "depth", "camera"} <= set(handle)


@dataclass(frozen=True)
class SceneFile:
    """An open file of scenes; they are read when they are asked for.

    Args:
        path: of the file.
        handle: of h5py.
        size: of every scene.
        times: [T], within 0..1.
        focal: [S] in half frames.
        poses: [S, V, T, 4, 4] world to camera.
    """

    path: Path
    handle: Any
    size: Size
    times: np.ndarray
    focal: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.focal)

    @property
    def title(self) -> str:
        """What the file says of itself."""
        title = self.handle.attrs.get("title", "")
        return title.decode(errors="replace") if isinstance(title, bytes) else str(title)

    @property
    def parts(self) -> dict[str, range]:
        """The scenes of training, validation and test; see `scenes.split`."""
        return scenes.split(len(self), str(self.path))

    def scene(self, number: int) -> Scene:
        """One scene, checked.

        Raises:
            DataError: damaged, or numbers that cannot be right.
        """
        with damage.reading(self.path):
            image, depth, track, moving = (
                self.handle[name][number].astype(LAYOUT[name][2]) for name in ("image", "depth", "track", "moving")
            )
        found = Scene(image, depth, self.poses[number], float(self.focal[number]), self.times, track, moving)
        scenes.check(found, f"{self.path}, scene {number}")
        return found


def read(path: Path) -> SceneFile:
    """Open a file of scenes: its layout, times and cameras are checked, and each scene when it is read.

    Raises:
        DataError: damaged, not of this layout, or with times or cameras that are not sound.
    """
    import h5py

    heaps.check(path)
    with damage.reading(path):
        handle = h5py.File(path, "r")
        _check_version(path, handle)
        count, size = _shapes(path, handle)
        times = _times(path, handle, size.frames)
        focal, poses = handle["focal"][:].astype(np.float64), handle["camera"][:].astype(np.float32)
    cameras.check_times(times, str(path))
    for number in range(count):
        scenes.check_cameras(poses[number], float(focal[number]), f"{path}, scene {number}")
    return SceneFile(path, handle, size, times, focal, poses)


def write(path: Path, made: Iterable[Scene], count: int, provenance: Mapping[str, str]) -> None:
    """Write scenes of one size, one after another as they are made, atomically and verified.

    Args:
        path: file to create or replace.
        made: the scenes.
        count: their number.
        provenance: attributes of the file.
    """
    import h5py

    written = hashlib.sha256()

    def verify(temporary: Path) -> None:
        back, found = read(temporary), hashlib.sha256()
        for number in range(len(back)):
            _add(found, back.scene(number))
        if (len(back), found.digest()) != (count, written.digest()):
            raise StorageError(f"cannot write {path}: scenes read back differently from what was written")

    with atomic_output(path, verify) as temporary, h5py.File(temporary, "w") as out:
        out.attrs[MARK] = VERSION
        # Of fixed length: damage to the heap of other strings makes the library loop forever.
        out.attrs.update({name: np.bytes_(text.encode()) for name, text in provenance.items()})
        for number, scene in enumerate(made):
            if number == 0:
                _lay_out(out, count, scene)
            for name, values in _values(scene).items():
                out[name][number] = values
            _add(written, scene)


def _lay_out(out: Any, count: int, first: Scene) -> None:
    """Create the data sets, in chunks of one view of one scene, each with the checksum of zlib."""
    lengths = {"S": count, **dict(zip("VTHW", first.size, strict=True))}
    packed = {"compression": "gzip", "compression_opts": COMPRESSION, "shuffle": True}
    for name, (axes, _, dtype) in LAYOUT.items():
        shape = _shape(axes, lengths)
        alone = 1 + axes.startswith("S V")  # axes along which a chunk has one entry
        chunks = (1,) * alone + shape[alone:] if len(shape) > 1 else shape
        out.create_dataset(name, shape, dtype, chunks=chunks, **packed)
    out.create_dataset(TIMES, data=first.times)


def _shape(axes: str, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(lengths[a] if a in lengths else int(a) for a in axes.split())


def _values(scene: Scene) -> dict[str, Any]:
    """The numbers of a scene by the names of the data sets."""
    return {
        "image": scene.image,
        "depth": scene.depth,
        "camera": scene.poses,
        "focal": scene.focal,
        "track": scene.track,
        "moving": scene.moving,
    }


def _add(digest: Any, scene: Scene) -> None:
    """Add the numbers of a scene to a hash, in the types of the file."""
    for name, values in _values(scene).items():
        digest.update(np.ascontiguousarray(values, LAYOUT[name][2]).tobytes())


def _check_version(path: Path, handle: Any) -> None:
    if MARK not in handle.attrs:
        raise DataError(f"{path} has no attribute {MARK}", f"{MARK} = {VERSION}", WAY_OUT)
    found = handle.attrs[MARK]
    if np.ravel(found).tolist() != [VERSION]:  # NetCDF writes a number as an array of one
        raise DataError(f"{path}: {MARK} is {found}", str(VERSION), "a later version of pdr may read it")


def _shapes(path: Path, handle: Any) -> tuple[int, Size]:
    """Number and size of the scenes.

    Raises:
        DataError: a data set is missing, or has another shape or other numbers.
    """
    import h5py

    lacking = [name for name in LAYOUT if not isinstance(handle.get(name), h5py.Dataset)]
    if lacking:
        expected = f"{lacking[0]} [{', '.join(LAYOUT[lacking[0]][0].split())}]"
        raise DataError(f"{path} has no data set {', '.join(lacking)}", expected, WAY_OUT)
    image = handle["image"].shape
    lengths = dict(zip("SVTHW", image, strict=False))
    for name, (axes, kinds, dtype) in LAYOUT.items():
        data = handle[name]
        if len(image) != 6 or data.shape != _shape(axes, lengths) or 0 in data.shape:
            expected = f"{name} [{', '.join(axes.split())}]" + ("" if name == "image" else f" as image {image}")
            raise DataError(f"{path}: {name} has the shape {data.shape}", expected, WAY_OUT)
        if data.dtype.kind not in kinds or (name == "image" and data.dtype != dtype):
            raise DataError(f"{path}: {name} has the type {data.dtype}", f"{np.dtype(dtype)}", WAY_OUT)
    return int(image[0]), Size(*image[1:5])


def _times(path: Path, handle: Any, frames: int) -> np.ndarray:
    if TIMES not in handle:
        return cameras.even_times(frames)
    found = np.asarray(handle[TIMES][()])
    if found.shape != (frames,) or found.dtype.kind not in "iuf":
        raise DataError(f"{path}: {TIMES} has the shape {found.shape} and type {found.dtype}", f"{frames} numbers")
    return found.astype(np.float64)
