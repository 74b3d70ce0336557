"""The messages of a GRIB file as bytes: where they are, and whether their sections fit together.

ecCodes reads beyond the memory of a damaged message, and can die of it, so that sections are checked before it sees them.
Layout: WMO Manual on Codes, FM 92 GRIB, editions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pdr_cli.errors import DataError

START, END = b"GRIB", b"7777"
BLOCK = 2**16
HEADER = {1: 8, 2: 16}  # length of section 0, by edition
BITMAP, DATA = 6, 7  # numbers of sections of edition 2
SAME_BITMAP = 254  # the bitmap of the field before
GRID_FLAG, BITMAP_FLAG = 0x80, 0x40  # of the optional sections of edition 1
LARGE = 0x800000  # set in the length of a message of edition 1 that counts in units of 120 bytes


@dataclass(frozen=True)
class Place:
    """Offset and length of a message in a file; of a message with several fields, the number of one, from 0."""

    offset: int
    length: int
    part: int | None = None


def places(path: Path) -> list[tuple[int, list[Place]]]:
    """Offset and fields of each message.

    Raises:
        DataError: a message is truncated, or its sections do not fit together.
    """
    with path.open("rb") as stream:
        return [(offset, _fields(path, stream, offset)) for offset in _offsets(path, stream)]


def read(path: Path, place: Place) -> bytes:
    """A message; a field of several as a message of its own."""
    with path.open("rb") as stream:
        stream.seek(place.offset)
        message = stream.read(place.length)
    return message if place.part is None else _alone(message, place.part)


def _offsets(path: Path, stream: BinaryIO) -> Iterator[int]:
    """Where messages start; other bytes between them are skipped."""
    at = 0
    while True:
        stream.seek(at)
        block = stream.read(BLOCK)
        found = block.find(START)
        if found >= 0:
            yield at + found
            at += found + _length(path, stream, at + found)
        elif len(block) < len(START):
            return
        else:
            at += len(block) - len(START) + 1


def _length(path: Path, stream: BinaryIO, offset: int) -> int:
    """Bytes of the message at an offset; only those whose last bytes are those of a message."""
    head = _at(stream, offset, 16)
    edition = head[7] if len(head) == 16 else 0
    length = int.from_bytes(head[8:16] if edition == 2 else head[4:7], "big")
    if edition == 1 and length & LARGE:
        last = _sections_1(stream, offset)[-1]
        length = (length ^ LARGE) * 120 - int.from_bytes(_at(stream, last, 3), "big") + len(END)
    if edition not in HEADER or _at(stream, offset + length - len(END), len(END)) != END:
        raise _damaged(path, offset)
    return length


def _fields(path: Path, stream: BinaryIO, offset: int) -> list[Place]:
    length = _length(path, stream, offset)
    stop = offset + length - len(END)
    if _at(stream, offset, 8)[7] == 1:
        last = _sections_1(stream, offset)[-1]
        large = bool(_at(stream, offset + 4, 1)[0] & 0x80)
        if not large and last + int.from_bytes(_at(stream, last, 3), "big") != stop:
            raise _damaged(path, offset)
        return [Place(offset, length)]
    at, numbers = offset + HEADER[2], []
    while at < stop:
        size, number = _section(_at(stream, at, 5))
        numbers.append(number)
        at += size
    if at != stop or DATA not in numbers:
        raise _damaged(path, offset)
    count = numbers.count(DATA)
    return [Place(offset, length, n if count > 1 else None) for n in range(count)]


def _sections_1(stream: BinaryIO, offset: int) -> list[int]:
    """Offsets of the sections of a message of edition 1, from section 1 to that of the numbers."""
    found = [offset + HEADER[1]]
    flags = _at(stream, found[0] + 7, 1)
    for _ in range(1 + sum(bool(flags and flags[0] & flag) for flag in (GRID_FLAG, BITMAP_FLAG))):
        found.append(found[-1] + int.from_bytes(_at(stream, found[-1], 3), "big"))
    return found


def _section(head: bytes) -> tuple[int, int]:
    """Length, never below that of its head, and number of a section of edition 2."""
    return max(5, int.from_bytes(head[:4], "big")), head[4] if len(head) == 5 else 0


def _alone(message: bytes, part: int) -> bytes:
    """One field of a message of edition 2: each section is the last before the field's numbers."""
    at, kept = HEADER[2], dict[int, bytes]()
    while part >= 0:
        length, number = _section(message[at : at + 5])
        section = message[at : at + length]
        if number != BITMAP or section[5] != SAME_BITMAP:
            kept[number] = section
        at, part = at + length, part - (number == DATA)
    body = b"".join(kept[number] for number in sorted(kept)) + END
    return message[:8] + (HEADER[2] + len(body)).to_bytes(8, "big") + body


def _at(stream: BinaryIO, offset: int, length: int) -> bytes:
    stream.seek(max(0, offset))
    return stream.read(length)


def _damaged(path: Path, offset: int) -> DataError:
    size = path.stat().st_size
    return DataError(
        f"{path} ({size} bytes) is damaged, truncated or still being written: the message at byte {offset} does not end "
        "where its sections do",
        way_out="wait until it is written, or get it again",
    )
