"""CUDA sources as programs for a CPU, which the tests of the kernels build and call."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pdr_cli.splat import build as splat_build

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "ext" / "predgsplat"
TYPES = (torch.float32, torch.float16, torch.bfloat16)  # as the kernels count them
SEED = 1  # an order of the threads; 0 is their own
STRICT = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(folder: Path, *sources: Path) -> Path:
    """Compile CUDA sources for the CPU under sanitizers, side by side, and link them to a program."""
    objects = _compile(folder, sources, [*STRICT, *SANITIZE])
    program = folder / "program"
    subprocess.run(["g++", *SANITIZE, *map(str, objects), "-o", str(program)], check=True)
    return program


def build_library(folder: Path) -> Path:
    """The CUDA library, whose operators then take the tensors of a CPU; without sanitizers, which Python would need too."""
    sources = [KERNELS / name for name in splat_build.CUDA_SOURCES]
    flags = ["-fPIC", "-DPREDGSPLAT_CUDA", "-DUSE_CUDA", splat_build._includes()]
    objects = _compile(folder, [*sources, HERE / "cuda_library_on_cpu.cpp"], flags)
    library = folder / "library.so"
    torch_cpu = splat_build._torch_libraries("torch_cpu").split()
    subprocess.run(["g++", "-shared", "-Wl,-Bsymbolic", *map(str, objects), *torch_cpu, "-o", str(library)], check=True)
    return library


def _compile(folder: Path, sources: Sequence[Path], flags: Sequence[str]) -> list[Path]:
    if not (shutil.which("g++") and shutil.which("objcopy")):
        pytest.skip("no g++")
    common = ["-std=c++20", "-O1", "-ffp-contract=off", f"-I{KERNELS}", "-include", str(HERE / "cuda_on_cpu.h")]
    objects = [folder / f"{source.name}.o" for source in sources]
    running = [
        subprocess.Popen(["g++", *common, *flags, "-x", "c++", "-c", str(source), "-o", str(o)])
        for source, o in zip(sources, objects, strict=True)
    ]
    assert [process.wait() for process in running] == [0] * len(sources)
    for o in objects:
        if o.name.endswith(".cu.o"):
            subprocess.run(["objcopy", "--rename-section", ".bss=cuda_shared", str(o)], check=True)
    return objects


def header(
    shape: tuple[int, int, int],
    size: tuple[int, int],
    kernel_size: float,
    analytic: bool,
    types: Sequence[int] = (-1,) * 5,
    **options: int,
) -> bytes:
    """Of a call of the renderer's kernels, for P frames of N Gaussians with C channels.

    types: of the four inputs and the image, as in `TYPES`; -1: the kernels for float32 alone. options: `seed`; `once`, whether
    Gaussians are prepared once (1), by each tile (0), or as the kernels decide (-1); `tile`, 16 or 8 pixels or -1; `unread`, a
    chunk of Gaussians that no tile may read; `offset`, numbers between the begin of memory and that of a typed array.
    """
    given = {"seed": SEED, "once": -1, "tile": -1, "unread": -1, "offset": 0} | options
    after = [given[name] for name in ("once", "tile", "unread")]
    return struct.pack("7qd9q", *shape, *size, analytic, given["seed"], kernel_size, *after, *types, given["offset"])


def call(program: Path, direction: str, header: bytes, arrays, shapes, dtypes=None) -> list[Tensor]:
    """The arrays that a program writes: of these shapes, and of float32 unless there are dtypes."""
    data = header + b"".join(x.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() for x in arrays)
    result = subprocess.run([str(program), direction], input=data, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()[:2000]
    dtypes = dtypes or [torch.float32] * len(shapes)
    sizes = [torch.Size(shape).numel() * dtype.itemsize for shape, dtype in zip(shapes, dtypes, strict=True)]
    assert len(result.stdout) == sum(sizes)
    flat = torch.frombuffer(bytearray(result.stdout or b"\0"), dtype=torch.uint8)[: sum(sizes)]
    parts = zip(flat.split(sizes), dtypes, shapes, strict=True)
    return [x.clone().view(dtype).reshape(shape) for x, dtype, shape in parts]
