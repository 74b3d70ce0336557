"""The compiled renderer's libraries: shipped with the wheel, or built once on the machine that uses them.

    library("cpu")   →  .../predgsplat-cpu-x86-64-v4-<hash>.so

The file name contains a hash of everything the library depends on: sources, flags, compiler, torch. Each build uses its
own folder and moves the result into the cache atomically: processes that build the same library do not wait for each
other, and a killed build leaves no lock behind. `python -m pdr_cli.splat.build FOLDER` builds the libraries of a wheel.

A library that was cut off, by an unfinished copy or a power cut, ends the process with SIGBUS when it is used. So each
file ends with a checksum, which is compared before the file is opened. It is part of the file, because two files cannot
be replaced in one step; the loader ignores what follows the sections of a library.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

log = logging.getLogger("pdr.splat")

CACHE_ENVIRONMENT = "PREDGSPLAT_CACHE"
CHECKSUM_MARK = b"predgsplat blake2b "
CHECKSUM_BYTES = len(CHECKSUM_MARK) + 32
LIMIT = 600  # seconds: a hanging compiler must not block a forecast forever

# -ffp-contract=fast fuses a*b + c; -ffast-math is left out because it would delete the rounding in the exponential.
CXX_FLAGS = "-std=c++20 -O3 -fPIC -fno-math-errno -fno-trapping-math -ffp-contract=fast -fvisibility=hidden"
NVCC_FLAGS = "-std=c++20 -O3 -Xcompiler -fPIC"
CUDA_SOURCES = ("cuda_forward.cu", "cuda_backward.cu", "compose_forward.cu", "compose_backward.cu", "ops.cpp")
X86_LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}  # torch's name for a CPU capability: GCC's


class BuildError(RuntimeError):
    """A library cannot be built; the message is the reason."""


@dataclass(frozen=True)
class Recipe:
    """The commands that build one library. `target`: its CPU level or GPU architectures."""

    kind: str
    target: str
    sources: tuple[str, ...]
    compile_cxx: str
    compile_cuda: str
    link: str
    reads: tuple[str, ...] = ()  # of the folder; empty: all files

    def name(self) -> str:
        """File name, with a hash of everything the library depends on."""
        parts = [self.compile_cxx, self.compile_cuda, self.link, torch.__version__, platform.machine()]
        parts += [_version(command.split()[0]) for command in (self.compile_cxx, self.compile_cuda) if command]
        digest = hashlib.sha256("\n".join(parts).encode())
        for path in sorted(sources_folder().glob("*")):
            if path.is_file() and (not self.reads or path.name in self.reads):
                digest.update(path.name.encode() + path.read_bytes())
        return f"predgsplat-{self.kind}-{self.target}-{digest.hexdigest()[:16]}.so"


def shipped(kind: str) -> Path | None:
    """The library for this machine that the installation contains, or None."""
    target = {"cpu": cpu_level, "cuda": cuda_architectures, "node": python_and_torch}[kind]()
    path = sources_folder() / "prebuilt" / f"predgsplat-{kind}-{target}.so"
    return path if path.is_file() else None


def cached(kind: str) -> Path:
    """Path in the cache of the library of a kind: "cpu", "cuda" or "node"; it need not exist.

    Raises:
        BuildError: no compiler, or a cache that cannot be used.
    """
    return cache_folder() / recipe_of(kind).name()


def recipe_of(kind: str) -> Recipe:
    """How the library of a kind is built for this machine."""
    if kind == "node":
        return node_recipe()
    return cpu_recipe(cpu_level()) if kind == "cpu" else cuda_recipe(cuda_architectures())


def library(kind: str) -> Path:
    """Path of the library of a kind in the cache; builds it if it is missing or damaged.

    Raises:
        BuildError: no compiler, no ninja, no sources, a cache that cannot be used, or a failed build; one line.
    """
    recipe = recipe_of(kind)
    path = cache_folder() / recipe.name()
    if not path.is_file():
        log.info("compiling the renderer for this machine, once: %s", path)
        _build(recipe, path)
    elif not intact(path):
        log.warning("%s is damaged or of an earlier version; compiling the renderer again", path)
        _build(recipe, path)
    return path


def intact(path: Path) -> bool:
    """Whether a library can be read and ends with the checksum of its content. Takes half a millisecond."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.endswith(_checksum(content[:-CHECKSUM_BYTES]))


def _checksum(library: bytes) -> bytes:
    return CHECKSUM_MARK + hashlib.blake2b(library, digest_size=32).digest()


def sources_folder() -> Path:
    """The `ext/predgsplat` of this installation or checkout."""
    package = Path(__file__).parents[1]
    inside = package / "ext" / "predgsplat"
    return inside if inside.is_dir() else package.parent / "ext" / "predgsplat"


def cache_folder() -> Path:
    """The folder of built libraries; created if necessary.

    Raises:
        BuildError: the folder cannot be created.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(os.environ.get(CACHE_ENVIRONMENT) or os.path.join(root, "predgsplat"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write to {folder} ({error.strerror}); set {CACHE_ENVIRONMENT}") from error
    return folder


def cpu_level() -> str:
    """The instruction set to compile for: the level of an x86 CPU, the architecture of any other."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine()
    return X86_LEVELS.get(torch.backends.cpu.get_cpu_capability(), "x86-64")


def cuda_architectures() -> str:
    """Compute capabilities to compile for, like `8.0+9.0`: from TORCH_CUDA_ARCH_LIST, or of this machine's devices."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(" ", ";").replace("+PTX", "")
    if listed:
        return "+".join(sorted(filter(None, listed.split(";"))))
    found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return "+".join(f"{major}.{minor}" for major, minor in sorted(found)) or "8.0+9.0"


def cpu_recipe(level: str) -> Recipe:
    """The schema and the CPU kernels, built by the C++ compiler."""
    march = f" -march={level}" if level.startswith("x86-64") else ""
    cxx = f"{_cxx()} {CXX_FLAGS}{march} {_includes()}"
    link = f"{_cxx()} -shared {_torch_libraries('torch_cpu')}"
    kernels = ("cpu_forward", "cpu_backward", "compose_cpu", "depthwise_cpu", "similarity_cpu", "norm_silu_cpu")
    sources = (*(f"{kernel}.cpp" for kernel in kernels), "ops.cpp")
    return Recipe("cpu", level, sources, cxx, "", link)


def cuda_recipe(architectures: str) -> Recipe:
    """The CUDA kernels, built by nvcc. The schema is in the CPU library, which is loaded first."""
    nvcc = _nvcc()
    codes = [a.replace(".", "") for a in architectures.split("+")]
    targets = " ".join(f"-gencode=arch=compute_{c},code=sm_{c}" for c in codes)
    targets += (
        f" -gencode=arch=compute_{codes[-1]},code=compute_{codes[-1]}"  # PTX, which newer devices compile themselves
    )
    cxx = f"{_cxx()} {CXX_FLAGS} -DPREDGSPLAT_CUDA -DUSE_CUDA {_includes()} -I{Path(nvcc).parents[1] / 'include'}"
    link = f"{nvcc} -shared {targets} {_torch_libraries('torch_cuda', 'torch_cpu')}"
    return Recipe("cuda", architectures, CUDA_SOURCES, cxx, f"{nvcc} {NVCC_FLAGS} {targets}", link)


def python_and_torch() -> str:
    """What the autograd node works with, like `cp311-torch2.13.0-x86_64`."""
    version = torch.__version__.partition("+")[0]
    return f"cp{sys.version_info.major}{sys.version_info.minor}-torch{version}-{platform.machine()}"


def node_recipe() -> Recipe:
    """The autograd node, built with the C++ headers of torch and Python; without kernels, so for every CPU level."""
    folder = Path(sysconfig.get_paths()["include"])
    if not (folder / "Python.h").is_file():
        raise BuildError(f"no headers of Python found in {folder}")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    cxx = f"{_cxx()} {CXX_FLAGS} {abi} {_includes()} -isystem {_quote(folder)}"
    link = f"{_cxx()} -shared {_torch_libraries('torch_python', 'torch_cpu', 'c10')}"
    source = "autograd_node.cpp"
    return Recipe("node", python_and_torch(), (source,), cxx, "", link, reads=(source, "gaussian.h", "kernels.h"))


def _build(recipe: Recipe, path: Path) -> None:
    """Compile and link in a temporary folder of this process; move the result to `path`."""
    ninja = _ninja()
    try:
        folder = tempfile.mkdtemp(prefix=".building-", dir=path.parent)
    except OSError as error:
        raise BuildError(f"cannot write to {path.parent} ({error.strerror}); set {CACHE_ENVIRONMENT}") from error
    try:
        Path(folder, "build.ninja").write_text(ninja_file(recipe), encoding="utf-8", errors="surrogateescape")
        command = [ninja, "-C", folder, "-j", os.environ.get("MAX_JOBS") or "2"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        if result.returncode != 0:
            raise BuildError(_first_error(result.stdout + result.stderr))
        built = Path(folder, "library.so")
        with built.open("r+b") as file:
            file.write(_checksum(file.read()))
        os.replace(built, path)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the compiler did not finish within {LIMIT} s") from error
    except OSError as error:
        raise BuildError(f"cannot build in {path.parent} ({error.strerror}); set {CACHE_ENVIRONMENT}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ninja_file(recipe: Recipe) -> str:
    """The contents of `build.ninja`."""
    rules = [
        f"rule cxx\n  command = {recipe.compile_cxx} -c $in -o $out",
        f"rule cuda\n  command = {recipe.compile_cuda} -c $in -o $out",
        f"rule link\n  command = {recipe.link.split(' ', 1)[0]} $in {recipe.link.split(' ', 1)[1]} -o $out",
    ]
    objects = []
    for source in recipe.sources:
        objects.append(source + ".o")
        rule = "cuda" if source.endswith(".cu") else "cxx"
        rules.append(f"build {source}.o: {rule} {_escape(sources_folder() / source)}")
    rules.append(f"build library.so: link {' '.join(objects)}")
    return "\n".join(rules) + "\n"


def _includes() -> str:
    return f"-I{_quote(Path(torch.__file__).parent / 'include')}"


def _torch_libraries(*names: str) -> str:
    return f"-L{_quote(Path(torch.__file__).parent / 'lib')} " + " ".join(f"-l{name}" for name in names)


def _cxx() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        if name and shutil.which(name):
            return name
    raise BuildError("no C++ compiler found (g++, c++, or the one that CXX names)")


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    if not found:
        raise BuildError("no CUDA compiler found (nvcc, on PATH or under CUDA_HOME)")
    return os.path.realpath(found)


def _ninja() -> str:
    """The ninja of this Python environment, which may not be on PATH, or the one on PATH."""
    found = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")
    if not found:
        raise BuildError("ninja not found (pip install ninja)")
    return found


def _version(command: str) -> str:
    try:
        return subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _first_error(output: str) -> str:
    """The first error of a build, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and not line.startswith("ninja")]
    return "the build failed: " + (errors or lines or ["no output"])[0]


def _quote(path: Path) -> str:
    return f"'{path}'" if " " in str(path) else str(path)


def _escape(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def main() -> None:
    """Build the libraries of a wheel: one per level of this architecture, and the autograd node for this torch."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    levels = [*X86_LEVELS.values(), "x86-64"] if cpu_level().startswith("x86-64") else [cpu_level()]
    for level in levels:
        path = folder / f"predgsplat-cpu-{level}.so"
        _build(cpu_recipe(level), path)
        print(path)
    try:
        node = node_recipe()
        path = folder / f"predgsplat-node-{node.target}.so"
        _build(node, path)
    except BuildError as error:
        print(f"without the autograd node, which is optional: {error}", file=sys.stderr)
    else:
        print(path)


if __name__ == "__main__":
    main()
