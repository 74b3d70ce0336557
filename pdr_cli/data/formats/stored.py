"""What an output says about itself, in whichever format it was written: its provenance, and its numbers for a hash."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pdr_cli.data.formats import cf, registry
from pdr_cli.data.formats.base import Field
from pdr_cli.data.formats.gridded import fields_of
from pdr_cli.errors import DataError
from pdr_cli.system import damage

PREFIX = "pdr_"
HASH = "pdr_data_sha256"  # attribute of an output: `data_sha256` of its numbers


def data_sha256(fields: Iterable[Iterable[np.ndarray]]) -> str:
    """SHA-256 of the sorted hashes of fields as float32: the same in any format and order of variables.

    Each field comes in blocks along its first dimension; how it is divided does not matter.
    """
    found = []
    for blocks in fields:
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(_plain(block).tobytes())
        found.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """`data_sha256` of the fields of an output."""
    with fields(path) as found:
        return data_sha256(f.blocks() for f in found.values())


def coordinates_sha256(path: Path) -> str:
    """`cf.coordinates_sha256` of everything but the fields, of a gridded format.

    Raises:
        DataError: damaged, or of another format.
    """
    form = registry.gridded(path)
    with damage.reading(path), form.undecoded(path) as dataset:
        names = fields_of(dataset)
        return cf.coordinates_sha256({str(n): v.values for n, v in dataset.variables.items() if n not in names})


def provenance(path: Path) -> dict[str, str]:
    """The `pdr_` attributes of an output; none of a file that has none or cannot be read."""
    try:
        every = registry.of(path).provenance(path)
    except (*damage.FAILURES, DataError):
        return {}
    return {str(k): str(v) for k, v in every.items() if str(k).startswith(PREFIX)}


@contextlib.contextmanager
def fields(path: Path) -> Iterator[dict[str, Field]]:
    """The fields of an output by name, readable inside of the block.

    Raises:
        DataError: damaged, also while reading, or a format that does not hold numbers as they were, such as video.
    """
    form = registry.of(path)
    with damage.reading(path), form.stored(path) as found:
        yield found


def _plain(field: np.ndarray) -> np.ndarray:
    field = np.ascontiguousarray(field, np.float32)
    return np.where(np.isnan(field), np.float32(np.nan), field)  # one canonical NaN, so that the hash is stable
