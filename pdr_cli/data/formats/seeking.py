"""Windows of frames read by seeking, equal to the same frames read from the start.

Containers and codecs differ in what a seek gives: indices point behind a key frame, stamps are counted anew, pictures refer
to frames before the key frame, palettes come with the first packet only. So every frame is compared with its checksum of
the scan; where one differs or is missing, decoding begins at an earlier key frame, and at last at the start.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from pdr_cli.data.formats import decoding, scans
from pdr_cli.data.formats.clips import Clip
from pdr_cli.errors import DataError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

SLACK = 32  # frames beyond the expected number that are decoded in search of a checksum


@dataclass
class Reader:
    """Frames of one clip by their numbers.

    Args:
        path: of the clip.
        clip: its scan.
        sought: windows for which seeks were tried.
        failed: those of them for which the first gave other frames.
        lost: those of them for which all did.
    """

    path: Path
    clip: Clip
    sought: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    lost: int = field(default=0, init=False)

    def frames(self, numbers: set[int], reformatter: VideoReformatter) -> Iterator[tuple[int, VideoFrame]]:
        """Each of the frames with its number, in any order.

        Raises:
            DataError: the file has changed since its scan.
        """
        missing = set(numbers)
        for stamp, by_sum in self._seeks(min(missing)):
            with decoding.opened(self.path) as (container, stream):
                search = self._by_sum if by_sum else self._by_stamp
                decoded = decoding.frames_behind(container, stream, stamp)
                for number, frame in search(decoded, stamp, missing, reformatter):
                    missing.remove(number)
                    yield number, frame
            if not missing:
                return
            self.failed += not by_sum
        yield from self._from_start(missing, reformatter)

    def _seeks(self, first: int) -> Iterator[tuple[int, bool]]:
        """Stamps to seek, of key frames ever further before `first`, and whether stamps are of no use behind them.

        A clip is not sought any more in a way that mostly failed.
        """
        keys = self.clip.keys.tolist()
        at = bisect.bisect_right(keys, first) - 1
        if at <= 0 or not len(self.clip.stamps) or 2 * self.lost > self.sought + 1:
            return
        self.sought += 1
        if 2 * self.failed <= self.sought:
            yield int(self.clip.stamps[first]), False
        for back in takewhile(lambda n: n < at, (2**n for n in range(30))):
            yield int(self.clip.stamps[keys[at - back]]), True
        self.lost += 1

    def _by_stamp(
        self, decoded: Iterator[VideoFrame], _: int, missing: set[int], reformatter: VideoReformatter
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Those of the decoded frames that are missing, placed by their stamps, up to the first whose picture differs."""
        number_of: dict[int | None, int] = {int(self.clip.stamps[n]): n for n in missing}
        last = int(self.clip.stamps[max(missing)])
        for frame in decoded:
            if (number := number_of.pop(frame.pts, None)) is not None:
                if decoding.checksum(frame, reformatter) != self.clip.sums[number]:
                    return
                yield number, frame
            if frame.pts is None or frame.pts >= last:
                return

    def _by_sum(
        self, decoded: Iterator[VideoFrame], stamp: int, missing: set[int], reformatter: VideoReformatter
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Those of the decoded frames that are missing, placed by their pictures alone, wherever the seek to `stamp` led."""
        numbers_of: dict[int, list[int]] = {}
        for number in missing:
            numbers_of.setdefault(int(self.clip.sums[number]), []).append(number)
        expected = max(missing) - int((self.clip.stamps < stamp).sum()) + SLACK
        for count, frame in enumerate(decoded):
            for number in numbers_of.pop(decoding.checksum(frame, reformatter), ()):
                yield number, frame
            if not numbers_of or count > expected:
                return

    def _from_start(self, missing: set[int], reformatter: VideoReformatter) -> Iterator[tuple[int, VideoFrame]]:
        if not missing:
            return
        last, found = max(missing), 0
        with decoding.opened(self.path) as (container, stream):
            for number, frame in enumerate(decoding.every_frame(self.path, container, stream)):
                if number in missing:
                    if decoding.checksum(frame, reformatter) != self.clip.sums[number]:
                        break
                    found += 1
                    yield number, frame
                if number >= last:
                    break
        if found < len(missing):
            scans.forget(self.path)
            raise DataError(
                f"{self.path}: frames {min(missing)} to {last} are not those that were decoded when it was opened; the "
                "file has changed or is damaged",
                way_out="start again with a whole file",
            )
