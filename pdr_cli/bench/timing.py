"""Timings of calls that take turns, elapsed and in CPU time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from pdr_cli.bench.machine import synchronize

MAX_SECONDS = 10.0  # per variant and pass: a slow baseline should not hold up the rest
MIN_REPEATS = 5
SAMPLE_SECONDS = 2e-3  # shorter calls are timed in groups, so that the clock and the synchronisation do not count


class Seconds(NamedTuple):
    """Of one call: elapsed, and CPU time of all threads, which other programs on the machine do not lengthen."""

    wall: float
    cpu: float


def interleave(calls: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[Seconds]]:
    """Seconds per call; the variants take turns, so that other load on the machine affects all of them alike."""

    def seconds(call: Callable[[], None], times: int) -> Seconds:
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            call()
        synchronize(device)
        return Seconds((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times)

    for call in calls.values():
        seconds(call, 1)  # warm-up: allocations, library handles
    group = {
        name: math.ceil(min(100, SAMPLE_SECONDS / min(seconds(call, 1).wall for _ in range(3))))
        for name, call in calls.items()
    }
    samples: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(max(repeats, MIN_REPEATS)):
        for name, call in calls.items():
            elapsed = sum(sample.wall for sample in samples[name]) * group[name]
            if len(samples[name]) < MIN_REPEATS or elapsed < MAX_SECONDS:
                if group[name] > 1:
                    # The previous variant has emptied the caches. A long call fills them by itself; of short calls the
                    # first takes four times as long as the next, and in use frames follow each other.
                    seconds(call, math.ceil(group[name] / 4))
                samples[name].append(seconds(call, group[name]))
    return samples


def statistics_of(samples: dict[str, list[Seconds]], name: str, batch: int, baseline: str) -> dict[str, Any]:
    """Milliseconds per frame, frames per second and ratios to the baseline; nothing for a variant that failed."""
    ratio = f"speedup_vs_{baseline}"
    if not samples.get(name):
        names = ("fps", "ms_p50", "ms_p10", "ms_p90", "cpu_ms_p50", "repeats", ratio, f"cpu_{ratio}")
        return dict.fromkeys(names)
    wall, cpu = medians(samples[name])
    tenths = statistics.quantiles([sample.wall for sample in samples[name]], n=10, method="inclusive")
    base = medians(samples[baseline]) if samples.get(baseline) else None
    return {
        "fps": batch / wall,
        "ms_p50": 1e3 * wall / batch,
        "ms_p10": 1e3 * tenths[0] / batch,
        "ms_p90": 1e3 * tenths[-1] / batch,
        "cpu_ms_p50": 1e3 * cpu / batch,
        "repeats": len(samples[name]),
        ratio: base.wall / wall if base else None,
        f"cpu_{ratio}": base.cpu / cpu if base else None,
    }


def medians(samples: Sequence[Seconds]) -> Seconds:
    return Seconds(*(statistics.median(values) for values in zip(*samples, strict=True)))
