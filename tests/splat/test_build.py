"""Where the compiled renderer comes from, and what happens where it cannot come from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdr_cli.splat import build
from tests.splat.forked import Server

try:
    LIBRARY = build.library("cpu")
except build.BuildError as error:
    pytest.skip(str(error), allow_module_level=True)

# Without optimisation, which takes most of the time and is not what is tested here.
RENDER = """
import torch
from pdr_cli import splat
from pdr_cli.splat import build
build.CXX_FLAGS = build.CXX_FLAGS.replace("-O3", "-O0")
one = torch.ones(1, 1)
image = splat.render(0 * one.expand(1, 2), one.expand(1, 2), one[0], one, size=(5, 5), kernel_size=3, backend={backend!r})
print(*splat.active_backend("cpu"), sep="; ")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Run code in a process of its own, which has imported torch but nothing of pdr."""
    server = Server(tmp_path_factory.mktemp("forked"))
    yield server.run
    server.close()


def test_importing_builds_nothing(tmp_path, run):
    result = run("import pdr_cli.splat, pdr_cli.models.pdr", PREDGSPLAT_CACHE=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert not any(tmp_path.iterdir())


def test_a_second_process_takes_what_the_first_one_built(tmp_path, compiler, run):
    first = run(RENDER.format(backend="cpu"), PREDGSPLAT_CACHE=str(tmp_path), CXX=compiler)
    assert first.stdout == "cpu; compiled for this machine\n", first.stderr
    (built,) = tmp_path.iterdir()  # and no folder of the build is left
    before = built.stat().st_mtime_ns
    second = run(RENDER.format(backend="cpu"), PREDGSPLAT_CACHE=str(tmp_path), CXX=compiler)
    assert second.returncode == 0
    assert built.stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_processes_may_build_at_once_and_a_killed_one_blocks_nobody(tmp_path, compiler):
    def start(**environment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", RENDER.format(backend="cpu")]
        environment |= {"PREDGSPLAT_CACHE": str(tmp_path), "CXX": compiler}
        return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE)

    killed = start(WAIT="10")
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".building-*/*.o")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not any(tmp_path.glob("*.so"))
    others = [start(), start()]
    assert [p.communicate(timeout=200)[0] for p in others] == [b"cpu; compiled for this machine\n"] * 2
    assert len(list(tmp_path.glob("*.so"))) == 1


@pytest.fixture
def no_compiler(tmp_path) -> dict[str, str]:
    """A machine with a Python and an empty cache, but nothing to compile with."""
    return {"PATH": str(tmp_path / "nothing"), "CXX": "", "PREDGSPLAT_CACHE": str(tmp_path / "cache")}


def test_without_a_compiler_auto_takes_the_reference_and_says_why_in_one_line(no_compiler, run):
    result = run(RENDER.format(backend="auto"), **no_compiler)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("reference; compiled cpu renderer unavailable: no C++ compiler found")
    assert result.stderr.count("using plain torch: no C++ compiler found") == 1
    assert len(result.stderr.splitlines()) == 1


def test_without_a_compiler_a_renderer_requested_by_name_is_an_error(no_compiler, run):
    by_argument = run(RENDER.format(backend="cpu"), **no_compiler)
    by_environment = run(RENDER.format(backend="auto"), PREDGSPLAT_BACKEND="cpu", **no_compiler)
    for result, request in ((by_argument, "backend='cpu'"), (by_environment, "PREDGSPLAT_BACKEND=cpu")):
        assert result.returncode == 1
        assert f"RendererUnavailable: {request}, but no C++ compiler found" in result.stderr


def test_a_failed_build_names_the_compiler_s_first_error(tmp_path, compiler, run):
    code = f"""
    import shutil
    from pathlib import Path
    from pdr_cli.splat import build, native
    folder = Path({str(tmp_path)!r}) / "sources"
    shutil.copytree(build.sources_folder(), folder)
    (folder / "simd.h").write_text("#error this is no processor\\n")
    build.sources_folder = lambda: folder
    print(native.unavailable("cpu"))
    """
    result = run(code, PREDGSPLAT_CACHE=str(tmp_path / "cache"), CXX=compiler, KEPT="ops.cpp.o")
    assert result.stdout.startswith("the build failed: "), result.stderr
    assert "this is no processor" in result.stdout
    assert not any((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(build.CACHE_ENVIRONMENT, str(tmp_path / "file" / "cache"))
    with pytest.raises(build.BuildError, match=r"cannot write to .*cache \(Not a directory\); set PREDGSPLAT_CACHE"):
        build.library("cpu")


def with_shipped(tmp_path: Path, content: bytes) -> str:
    """Code that says where the renderer comes from, if the installation carries a library with this content."""
    folder = tmp_path / "predgsplat"
    shutil.copytree(build.sources_folder(), folder)
    shipped = folder / "prebuilt" / f"predgsplat-cpu-{build.cpu_level()}.so"
    shipped.parent.mkdir(exist_ok=True)
    shipped.write_bytes(content)
    return f"""
from pathlib import Path
from pdr_cli.splat import build, native
build.CXX_FLAGS = build.CXX_FLAGS.replace("-O3", "-O0")
build.sources_folder = lambda: Path({str(folder)!r})
print(native.load("cpu"))
"""


def test_a_shipped_library_needs_no_compiler(tmp_path, no_compiler, run):
    result = run(with_shipped(tmp_path, LIBRARY.read_bytes()), **no_compiler)
    assert "prebuilt/predgsplat-cpu-" in result.stdout, result.stderr
    assert "reason=''" in result.stdout


def test_a_shipped_library_that_does_not_load_is_built_anew(tmp_path, no_compiler, compiler, run):
    code = with_shipped(tmp_path, b"for another system")
    cache = str(tmp_path / "cache")
    assert f"path='{cache}" in run(code, PREDGSPLAT_CACHE=cache, CXX=compiler).stdout
    alone = run(code, **no_compiler | {"PREDGSPLAT_CACHE": str(tmp_path / "other")}).stdout
    assert "does not load" in alone
    assert "no C++ compiler found" in alone


def test_a_change_of_anything_it_depends_on_builds_anew(tmp_path, monkeypatch):
    recipe = build.cpu_recipe(build.cpu_level())
    names = {recipe.name()}
    for path in build.sources_folder().iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with monkeypatch.context() as change:
        change.setattr(build, "sources_folder", lambda: tmp_path)
        assert recipe.name() in names
        (tmp_path / "gaussian.h").write_text("// another\n")
        names.add(recipe.name())
    with monkeypatch.context() as change:
        change.setattr(build.torch, "__version__", "2.11.0")
        names.add(recipe.name())
    with monkeypatch.context() as change:
        change.setattr(build, "CXX_FLAGS", "-O0")
        names.add(build.cpu_recipe(build.cpu_level()).name())
    names.add(build.cpu_recipe("x86-64").name())
    assert len(names) == 5 if build.cpu_level() != "x86-64" else 4


def test_paths_with_spaces(tmp_path, compiler, run):
    cache = tmp_path / "a cache: with $ signs"
    result = run(RENDER.format(backend="cpu"), PREDGSPLAT_CACHE=str(cache), CXX=compiler)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("named", "expected"), [("9.0", "9.0"), ("8.0;9.0+PTX", "8.0+9.0"), ("9.0 8.6", "8.6+9.0"), ("", "8.0+9.0")]
)
def test_architectures_of_a_gpu_are_those_named_or_a_fair_choice(monkeypatch, named, expected):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", named)
    monkeypatch.setattr(build.torch.cuda, "device_count", lambda: 0)
    assert build.cuda_architectures() == expected


def test_what_a_wheel_carries_is_a_library_for_each_level(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(build, "_build", lambda recipe, path: made.append((recipe.target, path)))
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path)])
    build.main()
    assert (build.cpu_level(), tmp_path / f"predgsplat-cpu-{build.cpu_level()}.so") in made
    assert capsys.readouterr().out.split() == [str(path) for _, path in made]


def test_the_library_asks_torch_for_nothing_but_its_stable_abi():
    symbols = subprocess.run(["nm", "-D", "-u", LIBRARY], capture_output=True, text=True, check=True).stdout
    from_torch = {line.split()[-1] for line in symbols.splitlines() if "torch" in line or "c10" in line}
    assert "torch_parallel_for" in from_torch
    assert not [name for name in from_torch if name.startswith("_Z")]


def test_sources_are_found_where_a_wheel_puts_them():
    assert {"gaussian.h", "cpu_shapes.h", "cpu_forward.cpp", "cpu_backward.cpp", "compose_cpu.cpp", "ops.cpp"} <= {
        p.name for p in Path(build.sources_folder()).iterdir()
    }
