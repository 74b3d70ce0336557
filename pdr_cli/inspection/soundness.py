"""Whether a forecast or a model is complete, finite, in range, and as it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pdr_cli import choices
from pdr_cli.data import formats
from pdr_cli.data.formats import Field, cf, clipfiles, clips, forecasts, gaussianset, stored
from pdr_cli.data.formats.stored import HASH
from pdr_cli.data.intervals import endings
from pdr_cli.data.missing import ABSURD
from pdr_cli.data.scenes import KIND
from pdr_cli.errors import CheckpointError, DataError, InputNotFoundError, PdrError
from pdr_cli.inference import exported
from pdr_cli.inference.filming import CAMERA
from pdr_cli.inference.finer import POINTS
from pdr_cli.inspection import gaussians, scenes
from pdr_cli.inspection.findings import Finding
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile, programs
from pdr_cli.runs.folder import RunFolder
from pdr_cli.runs.modelfile import ModelFile

AGAIN = "make it again with pdr predict"
UNEVEN = 0.15  # of a step: months are 28 to 31 days long


def of(path: Path) -> tuple[str, list[Finding]]:
    """What `path` is, "model", "scenes", "gaussians" or "forecast", and everything found.

    Raises:
        InputNotFoundError: no such file.
    """
    if is_model(path):
        return "model", list(_run(runs.find_model(str(path))))
    if scenes.is_scenes(path):
        return "scenes", list(scenes.findings(path))
    if gaussianset.is_set(path):
        return "gaussians", list(gaussians.findings(path))
    return "forecast", list(_forecast(path))


def refuse(path: Path, subject: str, found: Sequence[Finding]) -> None:
    """Raise the first problem, if there is one.

    Raises:
        CheckpointError, DataError: of a model, of a forecast or scenes.
    """
    problems = [f for f in found if f.level == "problem"]
    if problems:
        first = problems[0]
        count = f"{len(problems)} problems, the first: " if len(problems) > 1 else ""
        error = CheckpointError if subject == "model" else DataError
        raise error(f"{path}: {count}{first.what}", way_out=first.fix)


def is_model(path: Path) -> bool:
    """True for a model file, a run folder, or the bare name of a run."""
    if path.suffix == ".safetensors" or programs.is_program(path) or RunFolder(path).model.is_file():
        return True
    return not path.exists() and path.suffix.lower() not in formats.outputs()


def _run(model: Path) -> Iterator[Finding]:
    """The model, and if it is in a run folder, what training goes on from."""
    yield from _program(model) if programs.is_program(model) else _model(model)
    folder = RunFolder(model.parent)
    if model != folder.model:
        return
    if folder.previous_model.is_file():
        yield from _model(folder.previous_model)
    from pdr_cli.training import state

    for path in (folder.state, folder.previous_state):
        if path.is_file():
            fix = (
                "remove it" if path == folder.previous_state else "pdr train --resume continues from the previous state"
            )
            yield from _checked(path, fix, lambda p=path: f"state of step {state.read(p)[0].step}")  # type: ignore[misc]


def _model(path: Path) -> Iterator[Finding]:
    """Hash, structure and numbers of a model file. The code of others is not run, so their structure is not built."""
    fix = "pdr predict --fallback last-1 uses the previous model, or train again"
    read: list[ModelFile] = []
    yield from _checked(path, fix, lambda: _structure(path, read))
    for file in read:
        weights = {k: v for k, v in file.weights.items() if v.is_floating_point()}
        bad = [name for name, values in weights.items() if not values.isfinite().all()]
        if bad:
            yield Finding("problem", f"{path}: {len(bad)} weights are not finite, first {bad[0]}", fix)
        else:
            yield Finding("ok", f"{path}: {sum(w.numel() for w in weights.values())} weights, all finite")
        scaling = file.card.scaling
        if not (np.isfinite([*scaling.offset, *scaling.scale]).all() and min(scaling.scale) > 0):
            yield Finding("problem", f"{path}: the scaling of a variable is not a positive number", fix)


def _program(path: Path) -> Iterator[Finding]:
    """Hash of an exported program, and whether its runtime takes it."""

    def runs_here() -> str:
        return f"hash is right, and {exported.load(path).runtime} runs it"

    yield from _checked(path, "export it again with pdr export", runs_here)


def _structure(path: Path, read: list[ModelFile]) -> str:
    """Read a model file, and compare its weights with its network if all parts of it are ours."""
    from pdr_cli.inference import model as inference
    from pdr_cli.inference import scenes as in_space

    read.append(modelfile.read(path))
    others = choices.others(read[0].card.config.model)
    if others:
        return f"hash is right; the structure of {', '.join(others)} is not checked, because its code is not run"
    load = in_space.load if read[0].card.kind == KIND else inference.load
    load(path, "cpu")
    return "hash and structure are right"


def _checked(path: Path, fix: str, check: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding("ok", f"{path}: {check()}")
    except InputNotFoundError:
        raise
    except (PdrError, RuntimeError) as error:
        yield Finding("problem", str(error), fix)


def _forecast(path: Path) -> Iterator[Finding]:
    formats.find_inputs([path])
    try:
        form = formats.of(path)
        if form.name == "video":
            frames = len(clips.scan(path).times)
            yield Finding("ok", f"{frames} frames, all of which decode{_checked_by(path)}")
            return
        with stored.fields(path) as fields:
            yield from _fields(path, fields, form.gridded)
    except PdrError as error:
        yield Finding("problem", str(error), AGAIN)


def _checked_by(path: Path) -> str:
    about = stored.provenance(path)
    hashed = clips.PICTURES in about
    said = "pictures are those that were written (SHA-256)" if hashed else "pictures are compressed and hold no hash"
    of = about.get(clipfiles.DRAWN)
    return f"; {said}" + (f"; a drawing of {of}, without the numbers of the forecast" if of else "")


def _fields(path: Path, fields: dict[str, Field], gridded: bool) -> Iterator[Finding]:
    about = stored.provenance(path)
    yield from _hash(path, about, fields)
    filmed = CAMERA in about
    if gridded and not filmed and POINTS not in about:
        yield from _times(path, fields)
    yield from _members([f for f in fields.values() if f.members is not None])
    shares = json.loads(about.get("pdr_intervals", "{}")).get("shares", [])
    yield from _ends(fields, shares)
    ranges = json.loads(about.get("pdr_plausible", "{}"))
    if not set(ranges) & set(fields) and len(ranges) in (len(fields), len(fields) // (1 + 2 * len(shares))):
        ranges = dict(
            zip(fields, ranges.values(), strict=False)
        )  # NPZ numbers its channels, those of the forecast first
    for name, field in fields.items():
        yield from _values(name, field, ranges.get(name, (-ABSURD, ABSURD)), moving=filmed)


def _hash(path: Path, about: dict[str, str], fields: dict[str, Field]) -> Iterator[Finding]:
    if not fields:
        yield Finding("problem", "the file holds no field on a grid", AGAIN)
        return
    found = Finding.of_hash(about.get(HASH), lambda: stored.data_sha256(f.blocks() for f in fields.values()), AGAIN)
    if found.level == "ok" and cf.COORDINATES in about and stored.coordinates_sha256(path) != about[cf.COORDINATES]:
        what = "the coordinates differ from the SHA-256 written with them: altered or damaged"
        found = Finding("problem", what, AGAIN)
    yield found


def _times(path: Path, fields: dict[str, Field]) -> Iterator[Finding]:
    """Whether init times and lead times exist, are in order and evenly spaced."""
    try:
        found = forecasts.read([path], list(fields)[:1], member=0)
    except PdrError as error:
        yield Finding("problem", str(error), AGAIN)
        return
    leads, unit = found.leads, "s" if np.issubdtype(found.inits.dtype, np.floating) else "h"
    if len(leads) == 0 or leads[0] <= 0:
        yield Finding("problem", f"the lead times begin with {leads[:1].tolist()}, not after the init time", AGAIN)
    elif len(leads) > 2 and np.ptp(np.diff(leads)) > UNEVEN * np.diff(leads).mean():
        yield Finding("problem", f"the lead times are uneven: {', '.join(f'{v:g}' for v in leads[:6])} {unit}", AGAIN)
    else:
        yield Finding(
            "ok",
            f"{_count(len(found.inits), 'init time')}, {_count(len(leads), 'lead time')} up to {leads[-1]:g} {unit}",
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _ends(fields: dict[str, Field], shares: Sequence[float]) -> Iterator[Finding]:
    """Whether every interval has both ends, the lower one below the upper one."""
    for lower, upper in endings(shares):
        names = [(n, n.removesuffix(lower) + upper) for n in fields if n.endswith(lower)]
        crossed = sum(_crossed(fields[low], fields[high]) for low, high in names if high in fields)
        if not names or any(high not in fields for _, high in names):
            yield Finding("problem", f"the interval {lower.removeprefix('_lower_')} lacks an end", AGAIN)
        elif crossed:
            yield Finding("problem", f"{crossed} values of {names[0][0]} and its like are above the upper end", AGAIN)


def _crossed(lower: Field, upper: Field) -> int:
    """The number of lower ends that are above the upper ones."""
    return sum(int((low > high).sum()) for low, high in zip(lower.blocks(), upper.blocks(), strict=True))


def _members(ensembles: Sequence[Field]) -> Iterator[Finding]:
    """Whether the members of each ensemble differ from each other, in one variable at least."""
    if not ensembles:
        return
    count, twins = ensembles[0].shape[ensembles[0].members or 0], 0
    every = [_sums(field) for field in ensembles]
    for start in range(0, len(every[0]), count):
        members = [
            of_all for of_all in zip(*(sums[start : start + count] for sums in every), strict=True) if any(of_all)
        ]
        twins += len(members) - len(set(members))
    if twins:
        yield Finding("problem", f"{_count(twins, 'member')} equal another member of the same forecast", AGAIN)
    else:
        yield Finding("ok", f"{count} members of each forecast, all different")


def _sums(ensemble: Field) -> list[bytes]:
    """A hash of each member of each forecast; empty for one number in all cells, such as no rain."""
    found = []
    for block in ensemble.blocks():
        for member in block.reshape(-1, *block.shape[1 + (ensemble.members or 0) :]):
            known = member[np.isfinite(member)]
            even = known.size == 0 or known.min() == known.max()
            found.append(b"" if even else hashlib.sha256(np.ascontiguousarray(member).tobytes()).digest())
    return found


def _values(name: str, field: Field, ends: Sequence[float], moving: bool = False) -> Iterator[Finding]:
    """Numbers of one variable, [..., lead, y, x], between `ends`.

    Cells that are missing at every lead time of a forecast are land, or were missing in its whole window; those of the depth
    of a film, where nothing is drawn, are `moving`.
    """
    (low, high), counts, least, most, lacking = ends, np.zeros(4, int), np.inf, -np.inf, 0
    # A block of many forecasts holds whole ones; one alone is small.
    for block in field.blocks() if len(field.shape) > 3 else [field.read(0, field.shape[0])]:
        absent, known = np.isnan(block), block[np.isfinite(block)]
        uneven = (absent != absent[..., :1, :, :]).any(axis=(-2, -1)) & (not moving)
        outside = (known < low) | (known > high)
        counts += [np.isinf(block).sum(), absent.all(axis=(-2, -1)).sum(), uneven.sum(), outside.sum()]
        least, most = min(least, known.min(initial=np.inf)), max(most, known.max(initial=-np.inf))
        lacking = max(lacking, int(absent.sum(axis=(-2, -1)).max(initial=0)))
    frames = int(np.prod(field.shape[:-2]))
    said = (
        f"{counts[0]} values of {name} are infinite",
        f"{counts[1]} of {frames} frames of {name} hold no value",
        f"{counts[2]} of {frames} frames of {name} lack other cells than the first of their forecast",
        f"{counts[3]} values of {name} are not between {low:g} and {high:g}",
    )
    for count, what in zip(counts, said, strict=True):
        if count:
            yield Finding("problem", what, AGAIN)
    if not counts.any():
        missing = f", up to {lacking} cells of each missing" if lacking else ""
        yield Finding("ok", f"{name}: {frames} frames, {least:.4g} to {most:.4g}{missing}")
