"""Every open family takes the objects of an installed package; the package is the one of docs/extending.md."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pdr_cli import choices
from pdr_cli.errors import PdrError
from pdr_cli.families import Family
from pdr_cli.trust import USER
from tests.builders import field
from tests.cli import pdr
from tests.conftest import tiny_settings

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
OPEN = [family for family in choices.FAMILIES if family.open]


def blocks(language: str) -> list[str]:
    """The code blocks of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def announced() -> dict[str, dict[str, str]]:
    """{group: {name: place}} of the package's project file."""
    groups: dict[str, dict[str, str]] = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    return groups


def the_only(group: str) -> tuple[str, str]:
    ((name, place),) = announced()[group].items()
    return name, place


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "coastal.py").write_text(blocks("python")[0], encoding="utf-8")
    (folder / "coastal-1.0.dist-info").mkdir()
    (folder / "coastal-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: coastal\nVersion: 1.0\n")
    points = [
        line
        for group, names in announced().items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in names.items()))
    ]
    (folder / "coastal-1.0.dist-info" / "entry_points.txt").write_text("\n".join(points))
    return folder


@pytest.fixture(autouse=True)
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """200 steps of 6 hours on 8 x 9, in the package's format."""
    frames = field(200, 8, 9)
    times = np.datetime64("2020-01-01T00") + np.arange(200) * np.timedelta64(6, "h")
    lines = [" ".join([str(t), *map(str, f.ravel())]) for t, f in zip(times, frames, strict=True)]
    path = tmp_path / "air.gridtext"
    path.write_text("\n".join(["GRIDTEXT t2m K 8 9", *lines]))
    return path


def test_the_package_adds_to_every_family_that_takes_additions() -> None:
    assert set(announced()) == {family.group for family in OPEN}


@pytest.mark.parametrize("family", OPEN, ids=lambda family: family.name)
def test_an_announced_name_is_listed_and_found(family: Family) -> None:
    import coastal  # type: ignore[import-not-found]

    name, place = the_only(family.group)
    wanted = getattr(coastal, place.partition(":")[2])
    assert family.names() == [*family.own, name]
    family.check(name)
    assert family.find(name) is wanted
    assert family.find(place) is wanted, "without being announced"


@pytest.mark.parametrize("family", OPEN, ids=lambda family: family.name)
def test_a_misspelt_name_is_refused_with_the_nearest_and_the_list(family: Family) -> None:
    name, _ = the_only(family.group)
    with pytest.raises(PdrError) as caught:
        family.find(name[:-1])
    assert f"Did you mean '{name}'" in str(caught.value)
    assert all(known in str(caught.value) for known in family.names())


@pytest.mark.parametrize("family", OPEN, ids=lambda family: family.name)
def test_a_place_that_cannot_be_imported_says_where_modules_are_looked_for(family: Family) -> None:
    for place in ("nowhere:Thing", "coastal:Thing"):
        with pytest.raises(PdrError, match=r"cannot be imported.*PYTHONPATH"):
            family.find(place, USER)


def test_a_family_that_takes_no_additions_ignores_them(site: Path) -> None:
    points = site / "coastal-1.0.dist-info" / "entry_points.txt"
    before = points.read_text()
    try:
        points.write_text(f"{before}\n[pdr.schedules]\nsteep = coastal:Offset\n")
        assert "steep" not in choices.SCHEDULES.names()
        with pytest.raises(PdrError, match="coastal:Offset is not known"):
            choices.SCHEDULES.find("coastal:Offset")
    finally:
        points.write_text(before)


def test_commands_use_what_the_package_adds(grid: Path, tmp_path: Path) -> None:
    run, chosen = (
        tmp_path / "run",
        ("--backbone", "last-frame", "--adapter", "offset", "--fusion", "half", "--loss", "huber", "--logger", "table"),
    )
    trained = pdr("train", "--preset", "demo", "--data", grid, "-o", run, "--steps", "3", *chosen, *tiny_settings())
    assert trained.code == 0, trained.err
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert "huber" in first
    assert (run / "losses.txt").read_text().splitlines()[0] == f"{first['step']} {first['loss']}"

    made = pdr("predict", grid, "-m", run, "-o", tmp_path / "forecast.gridtext")
    assert made.code == 0, made.err
    head, *frames = (tmp_path / "forecast.gridtext").read_text().splitlines()
    assert head == "GRIDTEXT t2m K 8 9"
    assert frames[0].startswith("2020-02-20T00:00:00"), "six hours after the last observation"

    scored = pdr("evaluate", grid, "-m", run, "--against", "halfway", "--metrics", "rmse,excess", "--json")
    assert scored.code == 0, scored.err
    document = json.loads(scored.out)
    assert document["metrics"] == ["rmse", "excess"]
    assert document["metric_units"]["excess"] == "K"
    for name in ("run", "halfway"):
        scores = {metric: document["scores"][name][metric]["overall"] for metric in document["metrics"]}
        assert 0 < scores["excess"] < scores["rmse"], "an error beyond the tolerance is smaller than the error"


def test_an_ablation_of_the_package_runs(grid: Path, tmp_path: Path) -> None:
    arguments = ("--ablation", "l1-share", "--seeds", "1", "--steps", "1", "-o", tmp_path / "grid")
    done = pdr("train", "--preset", "demo", "--data", grid, *arguments, *tiny_settings())
    assert done.code == 0, done.err
    table = (tmp_path / "grid" / "ablation.md").read_text()
    assert "| half" in table
    assert "| most" in table


def test_commands_of_the_page_name_what_exists() -> None:
    from typer.main import get_command

    from pdr_cli import app

    for line in blocks("sh")[0].splitlines():
        _, command, *words = line.split()
        known = {o for p in get_command(app.app).commands[command].params for o in p.opts}  # type: ignore[attr-defined]
        assert {word for word in words if word.startswith("-")} <= known, line
