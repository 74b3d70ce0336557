"""The finished blocks of a hindcast that is not whole yet, kept beside its output so that the next run continues.

A hidden folder holds the request, a Zarr store of the blocks, and for each process a journal with one line for each block. A
block counts as finished if its numbers, read back, have the SHA-256 of its line. So nothing depends on the order in which a
crash lost writes, and no block waits for the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout
from pdr_cli.data.formats.zarr import Zarr
from pdr_cli.errors import DataError, PdrError
from pdr_cli.system import damage, space
from pdr_cli.system.atomic import remove_folder
from pdr_cli.system.logs import log
from pdr_cli.system.names import key, remove
from pdr_cli.system.processes import Processes

Block = tuple[int, int]  # inits [low, high), one whole chunk
Keep = Callable[[Block, np.ndarray, str], None]
ENDING = ".unfinished"
REQUEST, STORE = "request.json", "blocks.zarr"
FORM = Zarr()


@dataclass(frozen=True)
class Unfinished:
    """The finished blocks of a hindcast.

    Args:
        folder: beside the output.
        layout: of the output.
    """

    folder: Path
    layout: Layout

    @property
    def store(self) -> Path:
        """The Zarr store of the blocks; it becomes the output if that is a Zarr store."""
        return self.folder / STORE

    def kept(self, ranks: Processes) -> dict[Block, str]:
        """The blocks whose numbers match the journals, with their SHA-256; each process reads its share.

        The chunks of all other blocks are removed, because Zarr reads a chunk before it writes a part of it.
        """
        claims = ranks.from_first(_claims(self.folder, self.layout) if ranks.first else {})
        every = blocks(self.layout)
        claimed = [b for b in every if b in claims]
        matching = self._matching({claimed[i]: claims[claimed[i]] for i in ranks.share(len(claimed))})
        found = {b: digest for part in ranks.from_all(matching) for b, digest in part.items()}
        if ranks.first:
            _report(claimed, found, self.layout.shape[0])
            for low, high in every:
                if (low, high) not in found:
                    FORM.discard(self.store, self.layout, low)
        return found

    def _matching(self, claims: Mapping[Block, set[str]]) -> dict[Block, str]:
        found = {}
        for block, digests in claims.items():
            with contextlib.suppress(*damage.FAILURES), self.reading() as stored:
                digest = sha256(stored(*block))
                if digest in digests:
                    found[block] = digest
        return found

    def missing_bytes(self, kept: Mapping[Block, str]) -> int:
        """Bytes of the numbers that are not kept, uncompressed."""
        n = self.layout.shape[0]
        return self.layout.nbytes // n * (n - _count(kept))

    def reading(self) -> contextlib.AbstractContextManager[Callable[[int, int], np.ndarray]]:
        """A function that reads blocks."""
        return FORM.reading_back(self.store, self.layout)

    @contextlib.contextmanager
    def writing(self, rank: int) -> Iterator[Keep]:
        """A function that writes a block, and then its line in the journal of process `rank`."""
        place = self.folder / f"journal-{rank}.jsonl"
        with FORM.writing(self.store, self.layout) as put, place.open("a", encoding="utf-8") as journal:
            journal.write("\n")  # after a line that a crash has cut

            def keep(block: Block, frames: np.ndarray, digest: str) -> None:
                put(block[0], frames)
                journal.write(json.dumps({"inits": block, "sha256": digest}) + "\n")
                journal.flush()

            yield keep

    def leave(self, error: BaseException) -> None:
        """After a failure: keep the finished blocks, unless there are none or the input is at fault."""
        count, n = _count(_claims(self.folder, self.layout)), self.layout.shape[0]
        if not count or (isinstance(error, PdrError) and error.code == DataError.code):
            _remove(self.folder)
        else:
            log.warning(
                "%s of %s forecasts are kept in %s; the same command continues", f"{count:,}", f"{n:,}", self.folder
            )


@contextlib.contextmanager
def beside(
    output: Path, layout: Layout, request: Mapping[str, str], ranks: Processes, compress: int
) -> Iterator[Unfinished]:
    """The unfinished hindcast of an output, which is removed at the end; see `Unfinished.leave` for failures.

    Args:
        output: the caller holds its lock.
        layout: of the output.
        request: all that the numbers depend on, by name, in the first process. What was finished of another is removed.
        ranks: the processes that share the work.
        compress: see `Zarr.create`.

    Raises:
        StorageError: the folder cannot be created.
    """
    request = {**request, "layout": _layout_sha256(layout)}
    folder = Path(f"{_beginning(output)}{hashlib.sha256(_text(request).encode()).hexdigest()[:8]}{ENDING}")
    with ranks.together(), space.storage_errors(output):
        if ranks.first:
            _prepare(folder, output, layout, request, compress)
    begun = Unfinished(Path(ranks.from_first(str(folder))), layout)
    try:
        yield begun
    except BaseException as error:
        if ranks.first:
            begun.leave(error)
        raise
    if ranks.first:
        _remove(folder)


def folders(output: Path) -> list[Path]:
    """The folders of unfinished hindcasts of an output."""
    prefix = _beginning(output)
    pattern = re.compile(re.escape(prefix.name) + "[0-9a-f]{8}" + re.escape(ENDING))
    return sorted(Path(e.path) for e in os.scandir(prefix.parent) if pattern.fullmatch(e.name))


def claimed(output: Path) -> int:
    """The number of forecasts that are finished, by the journals beside an output."""
    return sum(_count(_lines(folder)) for folder in folders(output))


def blocks(layout: Layout) -> list[Block]:
    """The blocks of a hindcast: whole chunks along the inits."""
    n, length = layout.shape[0], layout.chunks[0]
    return [(low, min(low + length, n)) for low in range(0, n, length)]


def sha256(frames: np.ndarray) -> str:
    """SHA-256 of frames as stored."""
    return hashlib.sha256(cf.filled(frames).tobytes()).hexdigest()


def _prepare(folder: Path, output: Path, layout: Layout, request: Mapping[str, str], compress: int) -> None:
    """Create the folder, or take over what an earlier run left if it is sound and answers the same request."""
    for found in folders(output):
        reason, count = _reason(found, layout, request), _count(_lines(found))
        if reason:
            if count and (found / REQUEST).exists():
                log.warning("starts anew: removed the %s finished forecasts of an interrupted run, because of %s",
                            f"{count:,}", reason)  # fmt: skip
            _remove(found)
    if not folder.exists():
        folder.mkdir(mode=0o700)
        FORM.create(folder / STORE, layout, compress)
        # Last, so that a folder with a request is complete.
        (folder / REQUEST).write_text(
            _text({"request": request, "metadata": _metadata_sha256(folder, layout)}), encoding="utf-8"
        )
    for partial in folder.rglob("*.partial"):  # of a write by Zarr that was killed
        partial.unlink()


def _remove(folder: Path) -> None:
    """Remove a folder; without its request, what a crash leaves of it is removed silently."""
    remove(folder / REQUEST)
    remove_folder(folder)


def _reason(folder: Path, layout: Layout, request: Mapping[str, str]) -> str:
    """Why an unfinished hindcast cannot be continued; "" if it can."""
    try:
        found = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        other = [name for name, value in request.items() if found["request"].get(name) != value]
        if other:
            return f"another {other[0]}"
        if found["metadata"] == _metadata_sha256(folder, layout):
            with FORM.reading_back(folder / STORE, layout):
                return ""
    except damage.FAILURES:
        pass
    return "damage to them"


def _metadata_sha256(folder: Path, layout: Layout) -> str:
    """SHA-256 of the files that `Zarr.create` wrote, except for those of the group, which `Zarr.note` writes again."""
    digest, store = hashlib.sha256(), folder / STORE
    for path in sorted(store.glob("*/**/*")):
        parts = path.relative_to(store).parts
        if path.is_file() and not (parts[0] in layout.fields and parts[1] == "c"):
            digest.update("/".join(parts).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _layout_sha256(layout: Layout) -> str:
    """SHA-256 of a layout without its global attributes, which name the run."""
    parts = [
        list(layout.sizes.items()),
        [(c.name, c.dims, str(c.values.dtype), c.values.tolist(), c.attrs) for c in layout.coordinates],
        [layout.dims, layout.chunks, list(layout.fields.items())],
    ]
    return hashlib.sha256(_text(parts).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _beginning(output: Path) -> Path:
    target = Path(os.path.realpath(output))
    return target.with_name(f".{key(target)}.")


def _claims(folder: Path, layout: Layout) -> dict[Block, set[str]]:
    """The SHA-256 of blocks by the journals; a block that was made twice has two, of which either is right."""
    every = set(blocks(layout))
    return {block: digests for block, digests in _lines(folder).items() if block in every}


def _lines(folder: Path) -> dict[Block, set[str]]:
    """The lines of all journals that a crash has not cut."""
    found: dict[Block, set[str]] = {}
    for place in sorted(folder.glob("journal-*.jsonl")):
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                low, high = entry["inits"]
                found.setdefault((int(low), int(high)), set()).add(str(entry["sha256"]))
    return found


def _count(found: Mapping[Block, object]) -> int:
    return sum(high - low for low, high in found)


def _report(claimed: list[Block], kept: Mapping[Block, str], n: int) -> None:
    damaged = _count(dict.fromkeys(claimed)) - _count(kept)
    if damaged:
        log.warning("%s finished forecasts are damaged and made again", f"{damaged:,}")
    if kept:
        log.info("continues: %s of %s forecasts kept", f"{_count(kept):,}", f"{n:,}")
