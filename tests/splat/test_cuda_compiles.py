"""The CUDA kernels compile for the GPUs they are made for, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "ext" / "predgsplat"
FLAGS = ["-std=c++20", "-O3", "-cubin", "-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_no_warning_and_no_spill(tmp_path):
    commands = [
        [
            "nvcc",
            *FLAGS,
            f"-arch={arch}",
            str(KERNELS / f"cuda_{name}.cu"),
            "-o",
            str(tmp_path / f"{name}_{arch}.cubin"),
        ]
        for arch in ("sm_80", "sm_90")
        for name in ("forward", "backward")
    ]
    for pair in (commands[:2], commands[2:]):
        running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in pair]
        for process in running:
            log, _ = process.communicate()
            assert process.returncode == 0, log
            assert "warning" not in log
            spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
            assert set(spills) == {("0", "0")}, log
