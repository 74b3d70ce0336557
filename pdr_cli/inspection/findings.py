"""What `pdr inspect --for PRESET` finds: what is there, what a benchmark expects, and how to mend the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pdr_cli.data import formats, kinds, missing, splits, statistics
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import human36m, kth, npz
from pdr_cli.data.series import Series, names, read_frames, size
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import DataError, PdrError
from pdr_cli.schema import Config
from pdr_cli.training.prepare import Prepared, prepare

Level = Literal["ok", "warning", "problem"]
NPZ_TRAINING_WINDOWS = 20461
HUMAN_WINDOWS = {"train": 73404, "test": 8582}
KTH_CLIPS = 599  # 25 persons, 6 actions, 4 scenes; person13_handclapping_d3 was never published
SIZES = {"taxibj": (32, 32), "weatherbench": (32, 64), "kth": (128, 128), "human36m": (256, 256)}
YEARS = range(2010, 2019)
HOURS_OF_YEAR = 8760


@dataclass(frozen=True)
class Finding:
    """One thing found. "problem": the data cannot be used as they are; "warning": they differ from the benchmark's."""

    level: Level
    what: str
    fix: str = ""

    @classmethod
    def problem(cls, error: PdrError) -> Finding:
        """An error as a finding: its way out is the fix."""
        return cls("problem", str(error.replace(way_out="")), error.way_out)

    @classmethod
    def of_hash(cls, written: str | None, sha256: Callable[[], str], fix: str) -> Finding:
        """Whether numbers are those that were written: the hash in their file beside their own."""
        if written is None:
            return cls("warning", "the file holds no hash of its numbers", "write it with this version of pdr")
        if sha256() != written:
            return cls("problem", "the numbers differ from the SHA-256 written with them: altered or damaged", fix)
        return cls("ok", "the numbers are those that were written (SHA-256)")

    def row(self) -> dict[str, str]:
        """As the JSON report has it."""
        return asdict(self)


def of(resolved: Config, paths: Sequence[Path]) -> list[Finding]:
    """Everything to say about data for a preset: its benchmark's layout first, then split, windows and values."""
    found: list[Finding] = []
    try:
        prepared = prepare(resolved, paths)
    except DataError as error:
        problem = Finding.problem(error)
        return [*_layout(resolved, paths, None), problem]
    found += _layout(resolved, paths, prepared)
    found += _grid(resolved, prepared)
    found += _windows(resolved, prepared)
    found += _values(prepared)
    return found


def _layout(resolved: Config, paths: Sequence[Path], prepared: Prepared | None) -> list[Finding]:
    """What the benchmark of this name asks of its files; nothing for other presets."""
    checks: dict[str, Callable[[Sequence[Path], Prepared | None], Iterator[Finding]]] = {
        "taxibj": _taxibj,
        "weatherbench": _weatherbench,
        "kth": _kth,
        "human36m": _human36m,
    }
    if resolved.preset not in checks:
        return []
    try:
        return list(checks[resolved.preset](paths, prepared))
    except PdrError:
        # Files that cannot be opened were refused with their reason already.
        return []


def _taxibj(paths: Sequence[Path], prepared: Prepared | None) -> Iterator[Finding]:
    if formats.detect(paths[0]) == "npz":
        if prepared is not None:
            yield from _taxibj_npz(paths[0])
        return
    years = [y for y in ("13", "14", "15", "16") if any(f"BJ{y}" in p.name for p in paths)]
    if len(years) == 4:
        yield Finding("ok", "the four files BJ13 to BJ16 are there")
    else:
        absent = ", ".join(f"BJ{y}_M32x32_T30_InOut.h5" for y in ("13", "14", "15", "16") if y not in years)
        yield Finding(
            "warning",
            f"{len(years)} of the four files BJ13 to BJ16",
            f"put {absent} beside them; scores on fewer years cannot be compared with published ones",
        )
    if prepared is None or "slots_per_day" not in prepared.series[0].attrs["file_attrs"]:
        return
    one = prepared.series[0]
    slots = int(one.attrs["file_attrs"]["slots_per_day"])
    if slots != 48:
        yield Finding(
            "warning",
            f"{slots} slots a day, TaxiBJ has 48",
            "these are other data than TaxiBJ; traffic-small fits any city",
        )
    _, counts = np.unique(one.time.values.astype("datetime64[D]"), return_counts=True)
    short = int((counts < slots).sum())
    runs = len(time_axis.segments(one.time.values, prepared.step))
    yield Finding(
        "ok",
        f"{len(counts)} days, {short} of them with fewer than {slots} slots; {runs} unbroken runs. No window crosses "
        "a gap; protocol openstl drops the short days",
    )


def _taxibj_npz(path: Path) -> Iterator[Finding]:
    arrays = npz.members(path)
    for part in npz.parts_of(arrays).values():
        count = arrays[f"X_{part}"].shape[0]
        what = f"{count} {part} windows of {arrays[f'X_{part}'].shape[1]} + {arrays[f'Y_{part}'].shape[1]}"
        if part == "train" and count != NPZ_TRAINING_WINDOWS:
            fix = f"take the published file, which has {NPZ_TRAINING_WINDOWS}; scores on another cannot be compared"
            yield Finding("warning", what, fix)
        else:
            yield Finding("ok", what)
        some = np.asarray(arrays[f"X_{part}"].load()[:64])
        if np.nanmin(some) < -1.001 or np.nanmax(some) > 1.001 or np.nanmin(some) >= 0:
            yield Finding(
                "warning",
                f"X_{part} has values from {np.nanmin(some):.4g} to {np.nanmax(some):.4g}, expected are -1 to 1",
                "scale them to -1 to 1 by the extremes of the training data before saving",
            )


def _weatherbench(paths: Sequence[Path], prepared: Prepared | None) -> Iterator[Finding]:
    if prepared is None:
        return
    one = prepared.series[0]
    if names(one) == ["t2m"]:
        yield Finding("ok", "variable t2m")
    else:
        yield Finding(
            "warning",
            f"channels {', '.join(names(one))}, the published one is t2m",
            "name it with --var t2m if the files have it; scores of other variables are their own",
        )
    if prepared.step.hours != 1:
        yield Finding("warning", f"steps of {prepared.step}, published are hours", "give the hourly files")
    if np.issubdtype(one.time.values.dtype, np.datetime64):
        yield from _years(one)


def _years(one: Series) -> Iterator[Finding]:
    years, counts = np.unique(one.time.values.astype("datetime64[Y]").astype(int) + 1970, return_counts=True)
    there = dict(zip(years.tolist(), counts.tolist(), strict=True))
    absent = [y for y in YEARS if y not in there]
    whole = {y: HOURS_OF_YEAR + 24 * (y % 4 == 0) for y in YEARS}
    partly = [y for y in YEARS if 0 < there.get(y, 0) < whole[y]]
    if absent == list(YEARS):
        first, last = one.time.values[[0, -1]].astype("datetime64[D]")
        yield Finding(
            "warning",
            f"no time of 2010 to 2018, the data run from {first} to {last}; the fractions divide them",
            "set data.train_period, data.val_period and data.test_period to divide them by dates of your own",
        )
    elif absent:
        yield Finding(
            "warning",
            f"of 2010 to 2018, {len(absent)} years are missing: {', '.join(map(str, absent))}",
            f"add files such as 2m_temperature_{absent[0]}_5.625deg.nc, or set data.train_period, data.val_period and "
            "data.test_period to the years there are",
        )
    if partly:
        hours = ", ".join(f"{y} ({there[y]} of {whole[y]} hours)" for y in partly)
        yield Finding("warning", f"incomplete years: {hours}", "get these files again")
    if not absent and not partly:
        yield Finding("ok", "2010 to 2018 are complete")


def _kth(paths: Sequence[Path], prepared: Prepared | None) -> Iterator[Finding]:
    clips = [p for p in paths if kth.is_clip(p)]
    others = [p for p in paths if p not in clips]
    if others:
        yield Finding(
            "warning",
            f"{len(others)} of {len(paths)} clips are not named like person01_boxing_d1_uncomp, first {others[0].name}",
            "take them out, or rename them; without person and action a clip goes by val_fraction and test_fraction",
        )
    if not clips:
        return
    yield from _kth_counts(clips)
    videos = [p for p in clips if p.is_file()]
    if videos:
        listed = kth.find_list(videos[0])
        yield (
            Finding("ok", f"sequence list {listed.name} in {listed.parent}")
            if listed
            else Finding(
                "warning",
                f"no {kth.SEQUENCES} beside or above the clips: each is read whole, pauses and empty frames included",
                f"put {kth.SEQUENCES} from csc.kth.se/cvap/actions beside them",
            )
        )
    if prepared is not None and not videos:
        runs = [time_axis.segments(s.time.values, prepared.step) for s in prepared.series]
        broken = sum(len(r) > 1 for r in runs)
        yield Finding(
            "ok", f"{broken} of {len(runs)} folders have gaps in the numbers of their pictures; none is crossed"
        )


def _kth_counts(clips: Sequence[Path]) -> Iterator[Finding]:
    found = [m for p in clips if (m := kth.NAME.fullmatch(p.name if p.is_dir() else p.stem))]
    persons = {int(m[2]) for m in found}
    absent = [f"{n:02d}" for n in range(1, 26) if n not in persons]
    actions = [a for a in kth.ACTIONS if a not in {m[3] for m in found}]
    if len(found) == KTH_CLIPS and not absent and not actions:
        yield Finding("ok", f"all {KTH_CLIPS} clips of 25 persons and 6 actions")
        return
    lacking = (f"; no person {', '.join(absent)}" if absent else "") + (f"; no {', '.join(actions)}" if actions else "")
    yield Finding(
        "warning",
        f"{len(found)} of {KTH_CLIPS} clips{lacking}",
        "get the missing ones from csc.kth.se/cvap/actions; scores on fewer cannot be compared with published ones",
    )


def _human36m(paths: Sequence[Path], prepared: Prepared | None) -> Iterator[Finding]:
    given = [p for p in paths if p.name in human36m.LISTS]
    for name, part in human36m.LISTS.items():
        path = next((p for p in given if p.name == name), None)
        if path is None and part not in HUMAN_WINDOWS:
            continue
        if path is None:
            yield Finding("warning", f"no {name}", f"put the published {name} beside the pictures' folder")
            continue
        absent = human36m.missing(path)
        if absent:
            yield Finding(
                "problem",
                f"{name}: pictures missing: {len(absent)}, first {absent[0]}",
                f"extract the pictures again beside {name}, or take the lines that name them out",
            )
        count = sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
        if part not in HUMAN_WINDOWS:
            yield Finding("ok", f"{name} lists {count} windows, to validate on")
        elif count == HUMAN_WINDOWS[part]:
            yield Finding("ok", f"{name} lists {count} windows, as published")
        else:
            yield Finding(
                "warning",
                f"{name} lists {count} windows, the published list {HUMAN_WINDOWS[part]}",
                "take the published list; scores on another cannot be compared",
            )


def _grid(resolved: Config, prepared: Prepared) -> Iterator[Finding]:
    """The size of the frames beside the published one, and what resizes them."""
    wanted = SIZES.get(resolved.preset)
    here = size(prepared.series[0])
    source = tuple(prepared.series[0].attrs.get("source_size", here))
    if wanted is None:
        return
    if here == wanted:
        resized = f", resized from {source[0]} x {source[1]}" if source != here else ""
        yield Finding("ok", f"frames of {here[0]} x {here[1]}{resized}")
        return
    video = kinds.of(prepared.series[0]).pictures
    yield Finding(
        "warning",
        f"frames of {here[0]} x {here[1]}, published are {wanted[0]} x {wanted[1]}",
        f"--set data.size=[{wanted[0]},{wanted[1]}] resizes them"
        if video
        else "regrid them first to compare with published scores; as they are, a model of this size is trained",
    )


def _windows(resolved: Config, prepared: Prepared) -> Iterator[Finding]:
    yield Finding(
        "ok",
        f"{len(prepared.train)} / {len(prepared.val)} / {len(prepared.test)} windows to train / validate / test "
        f"({prepared.split.rule})",
    )
    if not len(prepared.test):
        yield Finding("warning", "no window to test on", "give the test data of the benchmark too")
    if resolved.preset not in SIZES or resolved.data.protocol == "openstl":
        return
    counts = []
    for part in ("train", "test"):
        try:
            cache = FrameCache(prepared.series, resolved.data.cache_mb)
            counts.append(len(splits.benchmark_windows(prepared.series, resolved.data, part, cache)))
        except DataError:
            counts.append(0)
    yield Finding(
        "ok" if all(counts) else "warning",
        f"{counts[0]} / {counts[1]} windows to train / test under protocol openstl",
        "" if all(counts) else "published windows need the training and test data of the benchmark",
    )


def _values(prepared: Prepared) -> Iterator[Finding]:
    found = prepared.missing
    if found is not None:
        yield Finding(
            "ok",
            f"{100 * found.share:.1f} % of the values are missing; {100 * found.never_observed.mean():.1f} % of the cells are "
            f"land, never known in training; {sum(int(b.sum()) for b in found.broken)} frames lack more",
        )
        return
    for one in prepared.series[:1]:
        try:
            missing.check(read_frames(one, 0, 1), one, 0, way_out=statistics.TRAIN_WAY_OUT)
        except DataError as error:
            yield Finding.problem(error)
