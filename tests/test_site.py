"""The docs as a site: complete, without dead links, made from the code, and legible on a phone without a network."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pdr_cli import choices, config
from pdr_cli.app import app

pytest.importorskip("zensical", reason="no site: the extra docs is not installed")
from docs.site import build, generated, links

CONFIG = """[project]
site_name = "small"
docs_dir = "pages"
site_dir = "site"
nav = [{ "Start" = "index.md" }, { "More" = [{ "Deep" = "deep/page.md" }] }]
theme.font = false
"""
INDEX = "# Start\n\n[deep](deep/page.md#a-part) [data](data.json) ![dot](dot.svg) [elsewhere](https://example.org)\n"
DOT = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder of docs that nothing is wrong with."""
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "index.md").write_text(INDEX)
    (folder / "deep/page.md").write_text("# Deep\n\n## A part\n\n[back](../index.md)\n")
    (folder / "data.json").write_text("{}")
    (folder / "dot.svg").write_text(DOT)
    return folder


def wrong_with(docs: Path, further: dict[str, str] | None = None) -> list[str]:
    path = docs.parent / "zensical.toml"
    path.write_text(CONFIG)
    return build.build(docs, docs.parent / "stage", path, further or {})


def test_nothing_is_wrong_with_good_pages(docs: Path) -> None:
    assert wrong_with(docs) == []
    assert (docs.parent / "stage/site/deep/page/index.html").is_file()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[x](nowhere.md)", "page does not exist"),
        ("[x](deep/page.md#no-part)", "anchor does not exist"),
        ("[x](nowhere.json)", "index.html: nowhere.json leads nowhere"),
        ("![x](nowhere.png)", "index.html: nowhere.png leads nowhere"),
        ('<a href="deep/page/#no-part">x</a>', "index.html: deep/page/#no-part leads nowhere"),
        ("![x](https://example.org/x.png)", "index.html: fetches https://example.org/x.png from elsewhere"),
        ('<script src="//example.org/x.js"></script>', "index.html: fetches //example.org/x.js from elsewhere"),
    ],
)
def test_a_broken_link_fails_the_build(docs: Path, line: str, complaint: str) -> None:
    (docs / "index.md").write_text(f"{INDEX}\n{line}\n")
    assert complaint in "\n".join(wrong_with(docs))


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page(docs: Path) -> None:
    assert wrong_with(docs, {"new.md": "# New\n"}) == ["new.md: is not in the navigation of zensical.toml"]
    (docs / "deep/page.md").unlink()
    assert "deep/page.md: is in the navigation of zensical.toml and does not exist" in wrong_with(docs)


def test_the_command_ends_with_an_error_where_something_is_wrong(docs, tmp_path, monkeypatch, capsys) -> None:
    config_file = tmp_path / "zensical.toml"
    config_file.write_text(CONFIG)
    for name, value in (("ROOT", tmp_path), ("DOCS", docs), ("CONFIG", config_file), ("of_the_root", dict)):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(generated, "pages", lambda root: {})
    assert build.main() == 0
    assert (tmp_path / "build/site/index.html").is_file()
    (docs / "deep/page.md").write_text("# Deep\n\n## A part\n\n[x](gone.md)\n")
    assert build.main() == 1
    assert "page does not exist" in capsys.readouterr().err


def test_links_to_the_root_and_to_folders_lead_to_pages_of_the_site() -> None:
    text = "[a](../CONTRIBUTING.md) [b](../presets/) [c](ablations) [d](https://x.org/ablations) [e](method.md#x)"
    there = "[a](contributing.md) [b](reference/presets.md) [c](ablations/files.md) [d](https://x.org/ablations) [e](method.md#x)"
    assert build.on_the_site(text, Path("index.md")) == there
    assert (
        build.on_the_site("[a](../../README.md) [b](../method.md)", Path("tutorials/a.md"))
        == "[a](../index.md) [b](../method.md)"
    )
    assert "](extending.md)" in build.of_the_root()["contributing.md"]


def test_the_reference_has_every_command_name_preset_and_key() -> None:
    commands = typer.main.get_command(app).commands
    page = generated.commands()
    assert all(f"## pdr {name}\n" in page for name in commands)
    assert all(
        option in page for command in commands.values() for p in command.params for option in p.opts if option[0] == "-"
    )
    page = generated.names()
    families = (*choices.FAMILIES, choices.ANCHORS, choices.OPENSTL_SCORES)
    assert all(f"| `{name}` | {choice.about} |" in page for family in families for name, choice in family.own.items())
    page = generated.presets()
    assert all(f"\n## {name}\n" in page and f"(#{name})" in page for name in config.preset_names())
    page = generated.keys()
    assert all(f"\n## [{key.split('.')[0]}]\n" in page for key in config.keys())  # noqa: SIM118
    assert all(f"| `{key.split('.')[1]}` |" in page for key in config.keys())  # noqa: SIM118


def test_types_and_limits_of_keys_are_in_words() -> None:
    page = generated.keys()
    assert "| `in_steps` | integer, ≥ 1 |" in page
    assert "| `schedule` | `onecycle`, `cosine`, `constant` |" in page
    assert "| `kernel_size` | integer or `auto` |" in page


def test_a_file_of_results_is_a_table_of_what_differs(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(
        '{"device": "A", "threads": 1, "rows": ['
        '{"variant": "x", "size": [2, 3], "ms_p50": 0.12345, "shares": {"loss": 0.5}},'
        '{"variant": "y", "size": [2, 3], "ms_p50": 2542.4, "shares": {"loss": 0.25}}]}'
    )
    page = generated.benchmarks(tmp_path)
    assert "[bench.json](bench.json): device A · threads 1 · size 2 × 3\n" in page
    assert page.endswith(
        "| variant | ms, median | share: loss |\n| --- | --: | --: |\n| x | 0.123 | 0.5 |\n| y | 2542 | 0.25 |\n"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, which nothing is wrong with."""
    stage = tmp_path_factory.mktemp("site")
    assert build.build(build.DOCS, stage, build.CONFIG, build.of_the_root() | generated.pages(build.ROOT)) == []
    return stage / "site"


def test_docstrings_are_on_the_pages_of_python(site: Path) -> None:
    page = links.Page((site / "reference/python/index.html").read_text())
    assert {"pdr_cli.api.train", "pdr_cli.api.Model.predict", "pdr_cli.errors.GridError"} <= page.anchors
    assert "an open dataset, or files, folders or globs" in (site / "reference/python/index.html").read_text()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# Elements of the text that reach beyond the window, unless they scroll.
STICKING_OUT = """() => {
  const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll('article *')].filter(e => !e.ownerSVGElement && !scrolls(e.parentElement)
    && e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1);
  return [document.documentElement.scrollWidth > innerWidth, ...wide.map(e => e.outerHTML.slice(0, 80))];
}"""


def test_pages_fit_the_window_and_fetch_nothing_from_elsewhere(browser: Any, address: str) -> None:
    page = browser.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    for path in (
        "",
        "tutorials/weather/",
        "reference/python/",
        "reference/commands/",
        "benchmarks/results/",
        "ablations/",
    ):
        page.goto(address + path)
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(STICKING_OUT) == [False], (path, width)
    page.evaluate(
        "() => document.querySelector('article').insertAdjacentHTML('beforeend', '<p style=width:3000px>x</p>')"
    )
    assert len(page.evaluate(STICKING_OUT)) == 2
    page.close()
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert complaints == []


def test_a_page_is_dark_in_the_dark(browser: Any, address: str) -> None:
    ground = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        ground[scheme] = sum(
            page.evaluate(
                "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
            )
        )
        page.close()
    assert ground["light"] > 700
    assert ground["dark"] < 120


def test_search_finds_what_a_page_says(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    for _ in range(40):  # keys pressed before the page listens are lost
        page.keyboard.press("Control+k")
        page.wait_for_timeout(500)
        if page.locator("input:focus").count():
            break
    page.keyboard.type("lpips_weight")
    page.locator("a[href*='method/?h=lpips_weight#']").wait_for(timeout=20_000)
    page.close()
