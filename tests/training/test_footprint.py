"""The memory that --dry-run promises, beside that of the training."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pdr_cli.training.footprint import Footprint, Live
from tests.builders import weather_file

SIZE = (240, 384)
# Its own process, so that the peak is that of the training alone.
SCRIPT = """
import re, sys
from pathlib import Path
from pdr_cli.process import main
sys.argv = ["pdr", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code
# Not of `resource`, whose peak is that of the process that started this one, if that was larger.
print("peak", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""
NETWORKS = {
    "unet": ["backbone=unet", "hid_s=16", "hid_t=24", "n_s=4", "n_t=2"],
    "tau": ["backbone=tau", "hid_s=16", "hid_t=64", "n_s=4", "n_t=2", "mlp_ratio=2"],
}


def arguments(data: Path, network: str, *more: str) -> list[str]:
    chosen = [
        *NETWORKS[network],
        "in_steps=2",
        "out_steps=2",
        "anchor=persistence",
        "inputs=frames",
        "noise=0",
        "ema=0",
    ]
    chosen += [
        "adapter=local",
        "fusion=concat",
        "batch=2",
        "val_windows=2",
        "train.baselines=false",
        "data.val_fraction=0.2",
    ]
    chosen += ["data.test_fraction=0", "members=1", "loss=l1ssim", *more]
    settings = [part for setting in chosen for part in ("--set", setting)]
    return ["train", "--preset", "demo", "--data", str(data), "--steps", "3", "-q", *settings]


def output(folder: Path, *given: str) -> str:
    """The output of a process of its own that runs `pdr`, and its peak."""
    command = [sys.executable, "-c", SCRIPT, *given]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow) if name == "tau" else name for name in NETWORKS]
)
def test_what_dry_run_promises_is_within_a_fifth_of_the_peak(tmp_path: Path, network: str) -> None:
    given = [*arguments(weather_file(tmp_path / "a.nc", 48, size=SIZE), network), "--device", "cpu"]
    found = re.search(r"# memory +([\d,]+) MB", output(tmp_path, *given, "--dry-run"))
    assert found is not None
    peak = int(output(tmp_path, *given).split("peak ")[1]) / 1e6
    assert int(found[1].replace(",", "")) == pytest.approx(peak, rel=0.2)


def test_windows_fit_beside_what_no_window_needs() -> None:
    found = Footprint(100, 40, 40, 80, window=50, fixed=10, cache=20, climatology=5, statistics=7, batch=2)
    assert found.total == 100 + 40 + 40 + 80 + 10 + 20 + 5 + 2 * 50
    assert [found.fitting(free) for free in (200, 344, 345, 395)] == [0, 0, 1, 2]
    assert found._replace(statistics=1000).total == 100 + 40 + 1000, "measuring comes before the steps"


def test_live_tensors_are_added_up() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with Live() as live:
        kept = weight * 2
        assert (live.now, live.most) == (4000, 4000), "the weight was there before"
        view = kept[10:].view(-1)
        assert live.now == 4000, "a view has no memory of its own"
        (kept + 1).sum().backward()
        assert live.now == 4000 + 4000, "the gradient stays"
        assert live.most >= 8000, "the sum's argument beside `kept`"
        del kept, view
    assert live.now == 4000
