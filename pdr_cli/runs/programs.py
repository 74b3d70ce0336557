"""Exported programs, ONNX and torch.export: the header of their model, which they carry, and the hash of the rest of the file.

Both are read without the libraries that run the programs, so that a file of others is refused before any of them opens it.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pdr_cli.errors import CheckpointError
from pdr_cli.system.hashes import sha256_of_blocks

ONNX, PT2 = ".onnx", ".pt2"
PRECISIONS = ("fp32", "fp16", "int8")  # of weights
RUNTIMES = {ONNX: "ONNX Runtime", PT2: "torch.export"}
PROGRAM = "program"  # key in the header of the model
ENTRY = (
    "pdr_model"  # of ONNX's metadata, and in "extra" of a .pt2: the header of the model, a safetensors file in base64
)
METADATA = 14  # the field of ONNX's ModelProto
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


@dataclass(frozen=True)
class Program:
    """What an exported file computes.

    Args:
        sha256: of the program, see `parted`.
        model_sha256: of the model file that it was exported from.
        precision: of its weights: "fp32", "fp16" or "int8".
        shorter: True if its first frames are the model's forecast of fewer steps.
        longer: True if fed its own forecast it makes the model's forecast of more steps.
    """

    sha256: str
    model_sha256: str
    precision: str
    shorter: bool
    longer: bool

    def to_json(self) -> str:
        """For the header."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Program:
        """The program that `to_json` was of."""
        return cls(**json.loads(text))


def is_program(path: Path | str) -> bool:
    """True for the name of an exported program."""
    return Path(path).suffix.lower() in RUNTIMES


def parted(content: bytes, path: Path) -> tuple[bytes, str]:
    """The header of the model in an exported file, and the SHA-256 of all the rest of the file.

    Raises:
        CheckpointError: no header of a model in it.
    """
    runtime = path.suffix.lower()
    try:
        header, sha256 = (_of_onnx if runtime == ONNX else _of_pt2)(content)
    except (ValueError, LookupError, zipfile.BadZipFile) as error:
        found = f"{path} ({len(content)} bytes) is truncated or not a program of {RUNTIMES[runtime]}: {error}"
        raise CheckpointError(found) from error
    if header is None:
        raise CheckpointError(
            f"{path} is a program of {RUNTIMES[runtime]}, but not of pdr: it has no {ENTRY}",
            way_out="export it again with this version: pdr export -m MODEL -o " + path.name,
        )
    return header, sha256


def with_header(program: bytes, header: bytes, runtime: str) -> bytes:
    """An exported file: a program with the header of its model.

    Args:
        program: without a header.
        header: see `parted`.
        runtime: of the program, `ONNX` or `PT2`.
    """
    text = base64.b64encode(header)
    if runtime == ONNX:
        pair = _delimited(1, ENTRY.encode()) + _delimited(2, text)
        return program + _delimited(METADATA, pair)  # messages of protobuf are joined by joining their bytes
    stream = io.BytesIO(program)
    with zipfile.ZipFile(stream, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{root}/extra/{ENTRY}"), text)
    return stream.getvalue()


def sha256_of(program: bytes, runtime: str) -> str:
    """The SHA-256 of a program without a header, as `parted` finds it."""
    return (_of_onnx if runtime == ONNX else _of_pt2)(program)[1]


def _of_onnx(content: bytes) -> tuple[bytes | None, str]:
    header, rest = None, []
    for number, field, value in _fields(content):
        pair = {n: v for n, _, v in _fields(value)} if number == METADATA else {}
        if pair.get(1) == ENTRY.encode():
            header = base64.b64decode(pair.get(2, b""), validate=True)
        else:
            rest.append(field)
    return header, sha256_of_blocks(rest)


def _of_pt2(content: bytes) -> tuple[bytes | None, str]:
    header, rest = None, []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("it has compressed parts")
        for name in sorted(archive.namelist()):
            entry = archive.read(name)
            if name.endswith(f"/extra/{ENTRY}"):
                header = base64.b64decode(entry, validate=True)
            else:
                rest += [f"{name} {len(entry)}\n".encode(), entry]
    return header, sha256_of_blocks(rest)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The fields of a protobuf message: number, whole field, and what it holds.

    Raises:
        ValueError: the bytes are not a message.
    """
    at, end = 0, len(message)
    while at < end:
        key, begin = _varint(message, at)
        kind = key & 7
        if kind == LENGTH:
            length, begin = _varint(message, begin)
        elif kind == VARINT:
            length = _varint(message, begin)[1] - begin
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"byte {at} begins no field")
        stop = begin + length
        if stop > end:
            raise ValueError(f"its field at byte {at} ends at {stop}")
        yield key >> 3, message[at:stop], message[begin:stop]
        at = stop


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's, and the place after it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError(f"byte {at} ends within a number")
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


def _delimited(number: int, value: bytes) -> bytes:
    """A field of protobuf that holds bytes."""
    return _encoded(number << 3 | LENGTH) + _encoded(len(value)) + value


def _encoded(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
