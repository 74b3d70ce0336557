"""Clips that were cut off: what their containers say of the length of the file, compared with the file.

Decoders read such a file as a shorter clip, without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pdr_cli.errors import DataError

BOXES = (
    *(
        b"ftyp",
        b"moov",
        b"mdat",
        b"wide",
        b"free",
        b"skip",
        b"moof",
        b"mfra",
        b"sidx",
        b"styp",
        b"udta",
        b"uuid",
        b"meta",
    ),
    *(b"emsg", b"pnot", b"prft"),
)  # at the top of MP4 and QuickTime
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
ASF = b"0&\xb2u\x8ef\xcf\x11"
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
UNKNOWN = (0, 2**32 - 1)  # sizes of a RIFF that was written to a pipe
KLV = b"\x06\x0e+4"
PNG = b"\x89PNG\r\n\x1a\n"
TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # length of a packet, and place of its mark


def check(path: Path) -> None:
    """Refuse a clip whose container says that the file is longer than it is.

    Raises:
        DataError: bytes are missing.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        claimed = _claimed(stream, size)
    if claimed > size:
        raise DataError(
            f"{path} ({size} bytes) is cut short: at least {claimed - size} bytes are missing",
            way_out="get or record it again; `ffmpeg -i IN -c copy OUT.mkv` keeps what there is as a shorter clip",
        )


def _claimed(stream: BinaryIO, size: int) -> int:
    """The length that the file should have at least; 0 where its container does not say."""
    head = stream.read(1024)
    walk = next((walk for fits, walk in WALKS if fits(head)), None)
    return max(walk(stream, size), default=0) if walk else 0


def _at(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    return stream.read(count)


def _boxes(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the boxes of MP4 and QuickTime."""
    place = 0
    while place + 8 <= size:
        header = _at(stream, place, 16)
        if header[4:8] not in BOXES:
            return
        length = int.from_bytes(header[:4])
        length = {0: size - place, 1: int.from_bytes(header[8:])}.get(length, length)
        place += max(length, 8)
        yield place


def _elements(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the elements of Matroska and WebM; those of a live stream have no length."""
    place = 0
    while place + 4 <= size:
        header = _at(stream, place, 16)
        width = _width(header[0])
        length, room = _length(header[width:])
        if header[:4] == SEGMENT and length is None:
            place += width + room
            continue
        if length is None:
            return
        place += width + room + length
        yield place


def _width(first: int) -> int:
    """Bytes of a number of EBML, by the leading zeros of the first."""
    return 9 - first.bit_length() if first else 8


def _length(header: bytes) -> tuple[int | None, int]:
    """The length of an element, None if it is unknown, and the bytes that the length takes."""
    room = _width(header[0]) if header else 1
    value = int.from_bytes(header[:room]) & ((1 << 7 * room) - 1)
    return (None if value == (1 << 7 * room) - 1 else value), room


def _riffs(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the RIFFs of AVI, of which a long file has several, and of WebP."""
    place = 0
    while place + 8 <= size:
        header = _at(stream, place, 8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or length in UNKNOWN:
            return
        place += 8 + length
        yield place - 8  # some writers count these 8 bytes twice
        place += length % 2


def _gif(stream: BinaryIO, size: int) -> Iterator[int]:
    """A GIF ends with its trailer, which may have anything behind it."""
    content = _at(stream, 0, size)
    place = 13 + _table(content[10])
    while place < size and content[place] != 0x3B:
        if content[place] == 0x2C:  # a picture
            place = _blocks(content, place + 11 + _table(content[place + 9])) if place + 9 < size else size
        elif content[place] == 0x21:  # an extension
            place = _blocks(content, place + 2)
        else:
            return
    yield place + 1


def _table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks(content: bytes, place: int) -> int:
    """The place behind a row of blocks, each behind its length."""
    while place < len(content) and content[place]:
        place += content[place] + 1
    return place + 1


def _pages(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the pages of Ogg."""
    place = 0
    while (header := _at(stream, place, 282))[:4] == b"OggS":
        count = header[26] if len(header) > 26 else 1
        place += 27 + count + sum(header[27 : 27 + count])
        yield place


def _tags(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the tags of FLV, each with its length behind it, which some writers leave out of the last."""
    place = int.from_bytes(_at(stream, 5, 4)) + 4
    while place + 11 <= size:
        place += 11 + int.from_bytes(_at(stream, place + 1, 3))
        yield place
        place += 4


def _asf(stream: BinaryIO, size: int) -> Iterator[int]:
    """The size in the properties of ASF and WMV; that of a live stream is not set."""
    head = _at(stream, 0, 2**16)
    at = head.find(ASF_PROPERTIES)
    if at >= 0 and not head[at + 88] & 1:
        yield int.from_bytes(head[at + 40 : at + 48], "little")


def _ts(stream: BinaryIO, size: int) -> Iterator[int]:
    """MPEG transport streams are whole packets."""
    head = _at(stream, 0, 1024)
    packet = next(length for length, mark in TS_PACKETS if _marked(head, length, mark))
    yield size + -size % packet


def _marked(head: bytes, length: int, mark: int) -> bool:
    places = range(mark, min(len(head), 4 * length), length)
    return len(places) > 1 and all(head[p] == 0x47 for p in places)


def _is_ts(head: bytes) -> bool:
    return any(_marked(head, length, mark) for length, mark in TS_PACKETS)


def _packs(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the packs and packets of MPEG program streams."""
    place = 0
    while (header := _at(stream, place, 14))[:3] == b"\0\0\1" and len(header) > 5:
        if header[3] == 0xBA:
            place += 14 + (header[13] & 7 if len(header) > 13 else 0) if header[4] >> 6 == 1 else 12
        elif header[3] > 0xBA and (length := int.from_bytes(header[4:6])):
            place += 6 + length
        else:
            return
        yield place


def _ivf(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the frames of IVF."""
    place = int.from_bytes(_at(stream, 6, 2), "little")
    while place < size:
        place += 12 + int.from_bytes(_at(stream, place, 4), "little")
        yield place


def _klv(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the keys, lengths and values of MXF."""
    place = 0
    while (header := _at(stream, place, 25))[:4] == KLV:
        first = header[16] if len(header) > 16 else 0
        long = first & 0x7F if first & 0x80 else 0
        if place == 0:  # the header says where the footer begins
            yield int.from_bytes(_at(stream, 17 + long + 24, 8)) + 1
        place += 17 + long + (int.from_bytes(header[17 : 17 + long]) if long else first)
        yield place


def _chunks(stream: BinaryIO, size: int) -> Iterator[int]:
    """Ends of the chunks of PNG, of which the last is IEND."""
    place, name = 8, b""
    while place < size and name != b"IEND":
        header = _at(stream, place, 8)
        name = header[4:]
        place += 12 + int.from_bytes(header[:4])
        yield place
    if name != b"IEND":
        yield place + 12


def _y4m(stream: BinaryIO, size: int) -> Iterator[int]:
    """Frames of YUV4MPEG have one length, behind a line each."""
    head = _at(stream, 0, 1024)
    first = head.find(b"\n") + 1
    second = head.find(b"\n", first) + 1
    if first and second and (length := _y4m_bytes(head[:first].decode("ascii", "replace").split())):
        frame = second - first + length
        yield first + -(-(size - first) // frame) * frame


def _y4m_bytes(words: list[str]) -> int:
    """Bytes of a picture of 8 bits; 0 where the header has another form."""
    given = {w[0]: w[1:] for w in words[1:] if w}
    sides = given.get("W", ""), given.get("H", "")
    if not all(s.isdigit() for s in sides) or "p1" in given.get("C", "420"):
        return 0
    width, height = map(int, sides)
    half = -(-width // 2), -(-height // 2)
    chroma = {"420": half[0] * half[1], "422": half[0] * height, "444": width * height, "mono": 0}
    found = next((n for name, n in chroma.items() if given.get("C", "420").startswith(name)), None)
    return 0 if found is None else width * height + 2 * found


Fits = Callable[[bytes], bool]
Walk = Callable[[BinaryIO, int], Iterator[int]]
WALKS: tuple[tuple[Fits, Walk], ...] = (
    (lambda head: head[4:8] in BOXES, _boxes),
    (lambda head: head[:4] == EBML, _elements),
    (lambda head: head[:4] == b"RIFF", _riffs),
    (lambda head: head[:4] == b"GIF8", _gif),
    (lambda head: head[:4] == b"OggS", _pages),
    (lambda head: head[:3] == b"FLV", _tags),
    (lambda head: head[:8] == ASF, _asf),
    (lambda head: head[:4] == b"\0\0\1\xba", _packs),
    (lambda head: head[:8] == PNG, _chunks),
    (lambda head: head[:4] == b"DKIF", _ivf),
    (lambda head: head[:4] == KLV, _klv),
    (lambda head: head[:10] == b"YUV4MPEG2 ", _y4m),
    (_is_ts, _ts),
)
