"""Training and predicting read windows, never whole files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from tests.conftest import tiny_settings

STEPS = 100_000
# Each command runs in a process of its own, which is forked after the modules were imported once.
SCRIPT = """
import json, os, resource, sys
from pdr_cli.commands import predict, train
from pdr_cli.process import main
for arguments in json.load(sys.stdin):
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
        continue
    sys.argv = ["pdr", *arguments]
    code = 1
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
    os._exit(code)
"""


def write_file(path: Path, steps: int) -> Path:
    """A wave on 32 x 32, hourly: 4 kB a step."""
    wave = np.sin(np.linspace(0, 6, 32, dtype=np.float32))
    with netCDF4.Dataset(path, "w") as out:
        for name, size in (("time", steps), ("lat", 32), ("lon", 32)):
            out.createDimension(name, size)
        time = out.createVariable("time", "f8", ("time",))
        time.units = "hours since 2000-01-01"
        time[:] = np.arange(steps)
        values = out.createVariable("t", "f4", ("time", "lat", "lon"), chunksizes=(100, 32, 32))
        for start in range(0, steps, 10_000):
            hours = np.arange(start, min(start + 10_000, steps), dtype=np.float32)
            values[start : start + len(hours)] = wave[:, None] * wave + np.sin(hours / 9)[:, None, None]
    return path


def peaks_mb(folder: Path, commands: list[list[str]]) -> list[int]:
    """The peak of memory of each command."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(commands),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # a fork has none of the threads
    )
    assert done.returncode == 0, done.stderr
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")]


def peak_mb(folder: Path, *arguments: str) -> int:
    """The peak of memory of one command."""
    return peaks_mb(folder, [list(arguments)])[0]


@pytest.mark.slow
def test_the_peak_does_not_grow_with_the_file(tmp_path: Path) -> None:
    files = {"small": write_file(tmp_path / "small.nc", 2_000), "large": write_file(tmp_path / "large.nc", STEPS)}
    size_mb = files["large"].stat().st_size / 1e6
    assert size_mb > 400
    settings = tiny_settings("data.cache_mb=16", "data.statistics_mb=1000")
    commands = []
    for name, path in files.items():
        commands += [
            ["train", "--preset", "demo", "--data", str(path), "-o", name, "--steps", "40", "-q", *settings],
            ["predict", str(path), "-m", name, "-o", f"{name}_forecast.nc"],
        ]
    peaks = peaks_mb(tmp_path, commands)
    grown = [large - small for small, large in zip(peaks[:2], peaks[2:], strict=True)]
    # The time axis itself, one line of each window, and 16 MB of cache may grow; 410 MB of frames may not.
    assert max(grown) < 120, f"train and predict took {grown} MB more for a file of {size_mb:.0f} MB"
