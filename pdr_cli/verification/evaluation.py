"""Models and baselines on the same windows, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pdr_cli.data import splits, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names, units
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import TimeError, UsageError
from pdr_cli.forecast import Model
from pdr_cli.logs import Progress
from pdr_cli.training.prepare import identities
from pdr_cli.verification import baselines, scores
from pdr_cli.verification.baselines import Request
from pdr_cli.verification.scores import Tally

BATCH = 16


@dataclass(frozen=True)
class Task:
    """What is to be scored on what."""

    models: dict[str, Model]
    series: list[Series]
    windows: Windows
    split: str


def task(models: dict[str, Model], series: list[Series], split: str, steps: int | None = None) -> Task:
    """The windows of one part that all models have the same claim to.

    With several models, a window belongs to a part only if it does for each of them; windows are as long as the
    longest history asks, and leads as many as `steps`, or else as the shortest horizon has.

    Raises:
        UsageError: models of different variables or steps, or no such split.
        TimeError: no window in this part.
    """
    if split not in ("test", "val", "train", "all"):
        raise UsageError(f"--split {split}: use test, val, train or all")
    first = next(iter(models.values()))
    for name, model in models.items():
        if list(model.card.variables) != list(first.card.variables) or not model.card.step.matches(first.card.step):
            raise UsageError(
                f"{name} forecasts other variables or steps than {next(iter(models))}; evaluate it by itself"
            )
    for one in series:
        windows.check_step(one.time.values, first.card.step, str(one.attrs["files"][0]))
    history = max(m.card.config.data.in_steps for m in models.values())
    horizon = steps or min(m.card.config.data.out_steps for m in models.values())
    cache = FrameCache(series, first.card.config.data.cache_mb)
    whole = [(n, 0, int(s.sizes["time"])) for n, s in enumerate(series)]
    found = windows.cut(series, whole, history, horizon, first.card.step, cache)
    if not len(found):
        longest = max(s.sizes["time"] for s in series)
        raise TimeError(
            f"{series[0].attrs['files'][0]}: a window needs {history + horizon} unbroken steps, found {longest} in all"
        )
    ids = identities(series)
    for model in models.values():
        found = splits.select(found, ids, model.card.seen, split)
    if not len(found):
        raise TimeError(
            f"{series[0].attrs['files'][0]}: no window is {split} data for {', '.join(models)}"
            + (
                "; everything here was used in training or choosing it. Give later data, or --split all"
                if split == "test"
                else ""
            )
        )
    return Task(models, series, found, split)


def evaluate(job: Task, against: Sequence[str], metrics: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Score everything; returns the JSON document of `pdr evaluate -o`."""
    first = next(iter(job.models.values()))
    data_range = np.asarray(first.card.scaling.data_range) * np.asarray(first.card.scaling.scale)
    wanted = scores.build(["mse", *[m for m in metrics if m != "mse"]], data_range)
    turns = {name: [m.check(s) for s in job.series] for name, m in job.models.items()}
    aligned = first.climatology.turned(turns[next(iter(turns))][0].invert)
    rivals = baselines.build(against, aligned)
    tallies = {name: Tally(wanted) for name in (*job.models, *rivals)}
    for start in range(0, len(job.windows), BATCH):
        which = np.arange(start, min(start + BATCH, len(job.windows)))
        observed, truth = job.windows.batch(which)
        for name, model in job.models.items():
            turn = turns[name][0]
            history = observed[:, -model.card.config.data.in_steps :]
            out = model.run(turn.apply(history), truth.shape[1]).fused
            tallies[name].add(turn.invert(out), truth)
        following = [job.windows.times(int(i))[job.windows.in_steps :] for i in which]
        request = Request(observed, following, job.windows.step, partial(job.windows.before, which))
        for name, rival in rivals.items():
            tallies[name].add(rival(request), truth)
        progress.update((start + len(which)) / len(job.windows))
    return _document(job, tallies, list(rivals), metrics)


def _document(job: Task, tallies: dict[str, Tally], rivals: list[str], metrics: Sequence[str]) -> dict[str, Any]:
    first = next(iter(job.models.values()))
    channels = names(job.series[0])
    results = {name: tally.result(channels) for name, tally in tallies.items()}
    step = first.card.step
    clips = job.series[0].attrs["format"] == "video"
    lead = [(i + 1) * (step.count if clips else step.hours) for i in range(job.windows.out_steps)]
    skills = {
        model: {
            rival: {
                "overall": scores.skill(results[model]["mse"]["overall"], results[rival]["mse"]["overall"]),  # type: ignore[arg-type]
                "lead": [
                    scores.skill(m, r)
                    for m, r in zip(results[model]["mse"]["lead"], results[rival]["mse"]["lead"], strict=True)  # type: ignore[arg-type]
                ],
            }
            for rival in rivals
        }
        for model in job.models
    }
    kept = {
        name: {k: v for k, v in result.items() if k.split(":")[0] in metrics or k == "mse"}
        for name, result in results.items()
    }
    dated = not np.issubdtype(job.series[0].time.values.dtype, np.floating)
    span = [job.windows.times(0)[0], job.windows.times(len(job.windows) - 1)[-1]]
    return {
        "units": " / ".join(dict.fromkeys(units(job.series[0]))),
        "variables": channels,
        "convention": "standard",
        "protocol": "honest",
        "split": job.split,
        "n_windows": len(job.windows),
        "period": [time_axis.label(t) for t in span] if dated else f"{len(np.unique(job.windows.places[:, 0]))} clips",
        "lead": lead,
        "lead_units": "seconds" if clips else "hours",
        "metrics": list(metrics),
        "scores": kept,
        "skill": skills,
    }
