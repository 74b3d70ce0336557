"""The rules of the house: dependencies point one way, and nothing heavy is imported before it is needed."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pdr_cli"
# A room may import rooms below it, and those of its own height that it does not import in a circle.
HEIGHTS = {
    "app": 7, "tools": 7, "options": 7, "__main__": 7, "process": 7,
    "commands": 6,
    "": 5, "api": 5,
    "ablation": 4, "bench": 4, "inspection": 4,
    "training": 3, "inference": 3, "verification": 3, "export": 3, "drawing": 3,
    "runs": 2,
    "models": 1, "data": 1,
    "splat": 0, "system": 0,
    "completion": 3, "bundles": 7,
    "config": -1, "optional_tables": -1, "schema": -1, "settings": -1, "choices": -1, "families": -1, "trust": -1,
    "errors": -2,
}  # fmt: skip
# Rooms of one height that must not know each other, in either direction.
STRANGERS = {("models", "data"), ("data", "models"), ("training", "inference"), ("inference", "training")}
# The rule of each of these is in the docstring of the test that reads it.
ALLOWED: dict[str, set[str]] = {
    "models": {"splat", "errors", "choices", "families", "optional_tables", "schema", "trust"},
    "splat": set(),
}


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Modules and names of the package that a file imports; inside functions too, but not for type checking alone."""
    found = set()
    tree = parsed(path)
    skipped = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            names = {f"{base}.{a.name}" for a in node.names}
            # The face of a package counts only where something of its own is taken from it.
            found |= names | ({base} if names - MODULES else set())
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return found


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that `from X import` names, relative imports resolved."""
    if not node.level:
        return node.module or ""
    parts = ["pdr_cli", *path.relative_to(PACKAGE).parts[:-1]]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def module_files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p) for p in module_files()}


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def rooms_imported(path: Path) -> set[str]:
    inside = (m.split(".") for m in imports_of(path) if m.startswith("pdr_cli."))
    return {parts[1] for parts in inside if parts[1] in HEIGHTS} - {room(path)}


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", module_files(), ids=ids)
def test_dependencies_point_one_way(path: Path) -> None:
    here = room(path)
    for there in rooms_imported(path):
        assert HEIGHTS[there] <= HEIGHTS[here], f"{here} imports {there}, which stands above it"
        assert (here, there) not in STRANGERS, f"{here} knows {there}"
        assert there in ALLOWED.get(here, HEIGHTS), f"{here} knows {there}"


def test_the_renderer_knows_only_torch() -> None:
    for path in (PACKAGE / "splat").glob("*.py"):
        outside = {m.split(".")[0] for m in imports_of(path)} - {"pdr_cli", "torch", *sys.stdlib_module_names}
        assert not outside, path


def test_no_room_is_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in module_files():
        graph.setdefault(room(path), set()).update(rooms_imported(path))
    refuse_circles(graph)


def test_no_file_is_in_a_circle() -> None:
    """Imports for type checking alone do not count."""
    refuse_circles({module_name(p): imports_of(p) & MODULES - {module_name(p)} for p in module_files()})


def refuse_circles(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for there in sorted(graph.get(name, ())):
                visit(there, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_no_command_imports_another() -> None:
    """What two commands share lies in the rooms below; tables are drawn in one file."""
    for path in (PACKAGE / "commands").glob("*.py"):
        siblings = {m for m in imports_of(path) if m.startswith("pdr_cli.commands.")}
        assert {m.split(".")[2] for m in siblings} <= {"tables"}, path


def test_every_module_belongs_to_a_known_room() -> None:
    assert {room(p) for p in module_files()} <= set(HEIGHTS)


REPLACING = {"os.replace", "os.rename", "os.link", "shutil.move", "tempfile.mkstemp", "tempfile.NamedTemporaryFile"}


def test_one_module_alone_replaces_files() -> None:
    used = {}
    for path in module_files():
        attributes = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.Attribute)]
        used[path.relative_to(PACKAGE).as_posix()] = {ast.unparse(a) for a in attributes} & REPLACING
    # The renderer's build knows only torch, so its cache has a rename of its own.
    assert {name for name, found in used.items() if found} == {"system/atomic.py", "splat/build.py"}


def outside_formats() -> Iterator[tuple[Path, str]]:
    for path in module_files():
        if PACKAGE / "data" / "formats" not in path.parents:
            yield path, path.read_text(encoding="utf-8")


def test_no_code_outside_formats_asks_what_the_format_was() -> None:
    """What the data mean is their kind (`data/kinds.py`); the file format ends where the Series begins."""
    asking = ('attrs["format"]', 'attrs.get("format")', "card.format")
    assert [ids(p) for p, text in outside_formats() if any(a in text for a in asking)] == []


def test_no_code_outside_formats_reads_a_message() -> None:
    reading = (
        '" in str(error)',
        "' in str(error)",
        '.removeprefix(f"{where}',
        "str(error).partition",
        "str(error).rpartition",
    )
    assert [ids(p) for p, text in outside_formats() if any(r in text for r in reading)] == []


PUBLIC = {"splat/__init__.py"}  # the public `render`, whose parameters are its documentation
MOST_PARAMETERS, LONGEST_FILE = 8, 450


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in module_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path.relative_to(PACKAGE).as_posix(), node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([a for a in every if a.arg not in ("self", "cls")])


def test_no_function_takes_more_than_eight_parameters() -> None:
    wide = {
        f"{name}:{node.name}": parameters(node)
        for name, node in functions()
        if name not in ("app.py", "tools.py") and name not in PUBLIC and parameters(node) > MOST_PARAMETERS
    }
    assert wide == {}


def test_functions_are_short() -> None:
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for _, node in functions())
    assert lengths[len(lengths) // 2] <= 7
    assert lengths[int(0.9 * len(lengths))] <= 18


def test_files_are_short() -> None:
    lines = {ids(p): len(p.read_text(encoding="utf-8").splitlines()) for p in module_files()}
    assert {n: c for n, c in lines.items() if c > LONGEST_FILE} == {}


def test_models_agree_on_interfaces_not_on_names() -> None:
    """`getattr` on another model's attribute is a contract that nobody declared."""
    for path in (PACKAGE / "models").rglob("*.py"):
        calls = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "getattr"]
        attributes = {ast.unparse(c.args[1]) for c in calls}
        assert not {a for a in attributes if a.startswith(("'", '"'))}, path


def test_help_needs_no_heavy_import() -> None:
    script = (
        "import sys, pdr_cli.app\n"
        "heavy = {'torch', 'numpy', 'xarray', 'matplotlib', 'pydantic', 'h5py', 'netCDF4', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_at_once() -> None:
    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The contract is 0.3 s; of the processor and the best of some, because the machine may be busy with other things. Where the
    # library that prints the help takes nearly as long by itself, it is that much and two fifths.
    pairs = (
        (seconds("-m", "pdr_cli", "--help"), seconds("-c", "import typer.main, typer.rich_utils")) for _ in range(25)
    )
    assert any(ours < max(0.3, 1.4 * library) for ours, library in pairs)
