"""The CUDA kernels compile for the GPUs they are made for, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pdr_cli.splat import build

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")

# Beside the flags of a user's build: every warning is an error, and the assembler reports its registers.
STRICT = "-Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror -Xptxas -v"


@dataclass(frozen=True)
class Built:
    """A library, and what the compilers printed."""

    path: Path
    log: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The library for one architecture and its PTX, built once for all tests of this file."""
    logs = []

    def run(*arguments, **options):
        result = subprocess.run(*arguments, **options)
        assert result.returncode == 0, result.stdout + result.stderr
        logs.append(result.stdout)
        return result

    # A torch for CPUs has no libtorch_cuda to link with; what is asked of it stays open in a shared library.
    libraries = build._torch_libraries
    with pytest.MonkeyPatch.context() as change:
        change.setenv(build.CACHE_ENVIRONMENT, str(tmp_path_factory.mktemp("cuda")))
        change.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
        change.setattr(build, "NVCC_FLAGS", f"{build.NVCC_FLAGS} {STRICT}")
        change.setattr(build, "_torch_libraries", lambda *names: libraries("torch_cpu"))
        change.setattr(build, "subprocess", SimpleNamespace(**vars(subprocess) | {"run": run}))
        path = build.library("cuda")
    return Built(path, "".join(logs))


def test_no_warning_and_no_spill(built: Built) -> None:
    assert "warning" not in built.log.replace(STRICT, ""), built.log  # ninja prints the commands too
    # `render` in two modes for 1, 2, 3, 4, 8 and 16 channels, up to 4 in two sizes of tiles, for float32 and for other types;
    # `compose` for 1 to 4, and its reduction.
    counts = {"forward_kernel": 2 * (12 + 8) + 4, "backward_kernel": 2 * 12 + 4 + 1, "prepare_kernel": 2}
    for kernel, count in counts.items():
        assert len(re.findall(rf"Compiling entry function '\w*{kernel}", built.log)) >= count, kernel
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", built.log)
    assert len(spills) >= sum(counts.values())
    assert set(spills) == {("0", "0")}, built.log


def test_the_library_builds_as_on_a_machine_with_a_gpu(built: Built) -> None:
    assert built.path.name.startswith("predgsplat-cuda-9.0-")
    symbols = subprocess.run(["nm", "-D", "-u", built.path], capture_output=True, text=True, check=True).stdout
    from_torch = {line.split()[-1] for line in symbols.splitlines() if "torch" in line or "c10" in line}
    assert "aoti_torch_get_current_cuda_stream" in from_torch
    # The stable ABI is C: a C++ name would bind the library to one version of torch.
    assert not [name for name in from_torch if name.startswith("_Z")]
