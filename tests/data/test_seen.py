from pathlib import Path

import numpy as np

from pdr_cli.data import seen
from pdr_cli.data.series import Series, make_series


def series(kind: str, file: str, **attrs: str) -> Series:
    frames = np.zeros((3, 1, 2, 2), np.float32)
    return make_series(frames, np.arange(3.0), {"v": {}}, {}, kind=kind, files=[file]).assign_attrs(attrs)


def test_clips_are_identified_by_their_hash_and_dated_series_by_nothing() -> None:
    hashed: list[Path] = []

    def sha256(path: Path) -> str:
        hashed.append(path)
        return f"hash of {path}"

    clips = [series("video", "a.mp4"), series("video", "a.mp4"), series("video", "pictures", identity="its own")]
    fields = [series("weather", "air.nc"), series("traffic", "city.h5")]
    assert seen.identities([*clips, *fields], sha256) == ["hash of a.mp4", "hash of a.mp4", "its own", "", ""]
    assert hashed == [Path("a.mp4")], "several sequences of one clip are hashed once"
