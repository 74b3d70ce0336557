"""The CUDA kernels compile for the GPUs they are made for, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pdr_cli.splat import build

KERNELS = Path(__file__).parents[2] / "ext" / "predgsplat"
ARCHITECTURES = ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"]
FLAGS = ["-std=c++20", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-fPIC,-Wall,-Wextra,-Werror", "-Xptxas", "-v"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_no_warning_and_no_spill(tmp_path):
    running = []
    for name in ("cuda_forward", "cuda_backward"):
        files = ["-c", str(KERNELS / f"{name}.cu"), "-o", str(tmp_path / f"{name}.o")]
        running.append(
            subprocess.Popen(
                ["nvcc", *FLAGS, *ARCHITECTURES, *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    for process in running:
        log, _ = process.communicate()
        assert process.returncode == 0, log
        assert "warning" not in log
        spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
        assert len(spills) >= 2 * 8, "one of each for 1 to 4 channels, two modes and two architectures"
        assert set(spills) == {("0", "0")}, log


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_the_library_builds_as_on_a_machine_with_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv(build.CACHE_ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    # A torch for CPUs has no libtorch_cuda to link with; what is asked of it stays open in a shared library.
    libraries = build._torch_libraries
    monkeypatch.setattr(build, "_torch_libraries", lambda *names: libraries("torch_cpu"))
    path = build.library("cuda")
    assert path.name.startswith("predgsplat-cuda-9.0-")
    symbols = subprocess.run(["nm", "-D", "-u", path], capture_output=True, text=True, check=True).stdout
    from_torch = {line.split()[-1] for line in symbols.splitlines() if "torch" in line or "c10" in line}
    assert "aoti_torch_get_current_cuda_stream" in from_torch
    # The stable ABI is C: a C++ name would bind the library to one version of torch.
    assert not [name for name in from_torch if name.startswith("_Z")]
