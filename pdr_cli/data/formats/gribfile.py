"""The messages of a GRIB file: what each holds and where, and its numbers, through ecCodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pdr_cli.data.formats import gribmessages
from pdr_cli.data.formats.gribmessages import Place
from pdr_cli.errors import DataError

RESOLUTION = 1e-3  # degrees
MISSING = 1e34  # of decoded values; no physical field reaches it
UNKNOWN = ("unknown", "undef", "~")
HECTOPASCAL = "isobaricInhPa"
WITHOUT_ROWS = ("reduced", "sh", "unstructured", "healpix", "unknown")  # beginnings of types of grids
# Units of ecCodes that UDUNITS does not know.
UNITS = {"(0 - 1)": "1", "(0-1)": "1", "~": "1", "Numeric": "1", "Proportion": "1", "dimensionless": "1"}


@dataclass(frozen=True)
class Grid:
    """The cells of a field, in the order in which its numbers are stored.

    Args:
        kind: such as "regular_ll".
        shape: (H, W); (0, 0) where a field has no rows and columns.
        latitude: [H], or [H, W] where rows are not parallels.
        longitude: [W], or [H, W].
    """

    kind: str
    shape: tuple[int, int] = (0, 0)
    latitude: np.ndarray = field(default_factory=lambda: np.empty(0))
    longitude: np.ndarray = field(default_factory=lambda: np.empty(0))

    def equals(self, other: Grid) -> bool:
        """Whether cells are the same within the resolution of GRIB 1."""
        pairs = ((self.latitude, other.latitude), (self.longitude, other.longitude))
        same = (self.kind, self.shape) == (other.kind, other.shape) and all(a.shape == b.shape for a, b in pairs)
        return same and all(np.allclose(a, b, rtol=0, atol=RESOLUTION) for a, b in pairs)


@dataclass(frozen=True)
class Quantity:
    """What the messages of one variable have in common.

    Args:
        name: of the variable in CF files, such as t2m.
        level_type: such as "isobaricInhPa"; levels in Pa are converted.
        step_type: "instant", "accum", "avg", "max", ...
        grid: its index in the grids of the file.
    """

    name: str
    level_type: str
    step_type: str
    grid: int


@dataclass
class Contents:
    """The messages of a file by quantity, the attributes of each quantity, and the grids of all."""

    messages: dict[Quantity, list[Message]] = field(default_factory=dict)
    attributes: dict[Quantity, dict[str, Any]] = field(default_factory=dict)
    grids: list[Grid] = field(default_factory=list)
    centre: str = ""


@dataclass(frozen=True)
class Message:
    """One field and its place in the file.

    Args:
        place: in the file.
        number: ensemble member.
        level: height, pressure, ... in the unit of the level type.
        init: reference time.
        valid: valid time; of an accumulation, mean or extreme, the end of its interval.
    """

    place: Place
    number: int
    level: float
    init: np.datetime64
    valid: np.datetime64


def scan(path: Path) -> Contents:
    """What a file holds, without decoding its numbers.

    Raises:
        DataError: truncated, or without any message.
    """
    found, grids = Contents(), dict[str, int]()
    with _damage(path):
        for handle, place in _each(path):
            _add(found, grids, handle, place)
    if not found.messages:
        raise DataError(f"{path} holds no GRIB message", way_out="get it again")
    return found


def _add(found: Contents, grids: dict[str, int], handle: int, place: Place) -> None:
    """Add a message to the contents; `grids` are the indices of grids by their hash."""
    key = str(_get(handle, "md5GridSection", str))
    if key not in grids:
        grid = _grid(handle)
        same = (n for n, other in enumerate(found.grids) if other.equals(grid))
        grids[key] = next(same, len(found.grids))
        found.grids += [grid] if grids[key] == len(found.grids) else []
    quantity, attributes = _quantity(handle, grids[key])
    found.messages.setdefault(quantity, []).append(_message(handle, place))
    # Editions describe a variable in different detail.
    found.attributes[quantity] = attributes | found.attributes.get(quantity, {})
    found.centre = found.centre or str(_get(handle, "centreDescription", str))


def _grid(handle: int) -> Grid:
    kind = str(_get(handle, "gridType", str))
    if kind.startswith(WITHOUT_ROWS):
        return Grid(kind)
    latitude, longitude = (_arranged(handle, _array(handle, f"{side}s")) for side in ("latitude", "longitude"))
    regular = np.ptp(latitude, axis=1).max() == 0 and np.ptp(longitude, axis=0).max() == 0
    sides = (latitude[:, 0], longitude[0]) if regular else (latitude, longitude)
    return Grid(kind, (latitude.shape[0], latitude.shape[1]), *sides)


def values(path: Path, place: Place) -> np.ndarray:
    """The numbers of a message: [H, W], NaN where they are missing."""
    import eccodes

    with _field(path, place) as handle:
        eccodes.codes_set(handle, "missingValue", MISSING)
        field = _arranged(handle, _array(handle, "values"))
        if _get(handle, "alternativeRowScanning", int):
            field[1::2] = field[1::2, ::-1].copy()
    return np.where(field == MISSING, np.nan, field).astype(np.float32)


def _quantity(handle: int, grid: int) -> tuple[Quantity, dict[str, Any]]:
    """The quantity of a message, and the attributes of its variable."""
    param = _get(handle, "paramId", int)
    names = (str(_get(handle, key, str)) for key in ("cfVarName", "shortName"))
    name = next((n for n in names if n not in UNKNOWN), f"param{param}")
    unit, step_type = (str(_get(handle, key, str)) for key in ("units", "stepType"))
    level_type = str(_get(handle, "typeOfLevel", str)).replace("isobaricInPa", HECTOPASCAL)
    about = {
        "units": UNITS.get(unit, unit),
        "standard_name": _get(handle, "cfName", str),
        "long_name": _get(handle, "name", str),
        "GRIB_paramId": param,
        "GRIB_stepType": step_type,
    }
    known = {key: value for key, value in about.items() if value not in UNKNOWN}
    return Quantity(name, level_type, step_type, grid), known


def _message(handle: int, place: Place) -> Message:
    level = float(_get(handle, "level", float))
    if _get(handle, "typeOfLevel", str) == "isobaricInPa":
        level /= 100
    init, valid = (_time(handle, *keys) for keys in (("dataDate", "dataTime"), ("validityDate", "validityTime")))
    return Message(place, int(_get(handle, "number", int) or 0), level, init, valid)


def _time(handle: int, date: str, time: str) -> np.datetime64:
    """A time from the keys of its date (YYYYMMDD) and time of day (HHMM)."""
    day, minute = int(_get(handle, date, int)), int(_get(handle, time, int))
    text = f"{day // 10000:04d}-{day // 100 % 100:02d}-{day % 100:02d}T{minute // 100:02d}:{minute % 100:02d}"
    return np.datetime64(text, "ns")


def _arranged(handle: int, flat: np.ndarray) -> np.ndarray:
    """Numbers in the order of the message as [H, W]."""
    width, height = (_get(handle, key, int) for key in ("Nx", "Ny"))
    by_columns = _get(handle, "jPointsAreConsecutive", int)
    return flat.reshape(width, height).T if by_columns else flat.reshape(height, width)


def _array(handle: int, key: str) -> np.ndarray:
    import eccodes

    return np.asarray(eccodes.codes_get_array(handle, key), np.float64)


def _get(handle: int, key: str, kind: type) -> Any:
    """A key of a message; None if the message does not have it."""
    import eccodes

    try:
        return eccodes.codes_get(handle, key, kind)
    except eccodes.KeyValueNotFoundError:
        return None


def _each(path: Path) -> Iterator[tuple[int, Place]]:
    """The fields of a file; each is released as the next is taken. Numbers are not read where messages have one field."""
    import eccodes

    every = gribmessages.places(path)
    if any(len(fields) > 1 for _, fields in every):
        for place in (place for _, fields in every for place in fields):
            with _field(path, place) as handle:
                yield handle, place
        return
    eccodes.codes_grib_multi_support_off()  # another library may have it on
    with path.open("rb") as stream:
        for offset, (place,) in every:
            with _next(path, stream, offset) as handle:
                yield handle, place


@contextmanager
def _next(path: Path, stream: BinaryIO, offset: int) -> Iterator[int]:
    """The next message of an open file, without its numbers."""
    import eccodes

    with _released(eccodes.codes_grib_new_from_file(stream, headers_only=True)) as handle:
        if handle == 0 or _get(handle, "offset", int) != offset:
            raise DataError(f"{path} is damaged: ecCodes finds another message than that at byte {offset}")
        yield handle


@contextmanager
def _field(path: Path, place: Place) -> Iterator[int]:
    """A field with its numbers."""
    import eccodes

    with _damage(path), _released(eccodes.codes_new_from_message(gribmessages.read(path, place))) as handle:
        yield handle


@contextmanager
def _released(handle: int | None) -> Iterator[int]:
    import eccodes

    try:
        yield handle or 0
    finally:
        if handle is not None:
            eccodes.codes_release(handle)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn the failures of ecCodes in the block into a DataError."""
    import eccodes

    try:
        yield
    except eccodes.CodesInternalError as error:
        size = path.stat().st_size
        raise DataError(f"{path} ({size} bytes) is damaged, truncated or still being written: {error}") from error
