"""Build the docs as a site: `python -m docs.site.build`, which is `make docs`.

The pages of docs/, those of the project's root and those that `generated` makes are laid out in build/docs, from which
Zensical makes build/site in its strict mode. Then `links` looks for what leads nowhere. Anything wrong ends with exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.site import links

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
CONFIG = Path(__file__).with_name("zensical.toml")
OF_THE_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# What the site has in the place of what a code host shows: by the target as from docs/.
INSTEAD = {f"../{name}": page for name, page in OF_THE_ROOT.items()} | {
    "../README.md": "index.md",
    "../presets": "reference/presets.md",
    "ablations": "ablations/files.md",
    "benchmarks": "benchmarks/README.md",
}
NOT_PAGES = shutil.ignore_patterns("*.py", "*.toml", "*.sh", "__pycache__")
QUIET = re.compile(r"Build (started|finished)|No issues found")  # what Zensical prints if all is well
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]*)")  # of a Markdown link, without its anchor


def main() -> int:
    """Build the site into build/site, print what is wrong, and return the exit code."""
    from docs.site import generated

    started = time.perf_counter()
    wrong = build(DOCS, ROOT / "build/docs", CONFIG, of_the_root() | generated.pages(ROOT))
    if not wrong:
        site = ROOT / "build/site"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(ROOT / "build/docs/site", site)
        print(
            f"{site.relative_to(ROOT)}: {len(list(site.rglob('*.html')))} pages, {time.perf_counter() - started:.1f} s"
        )
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def build(docs: Path, stage: Path, config: Path, further: Mapping[str, str]) -> list[str]:
    """Lay the pages out in `stage` and make the site `stage/site` of them.

    Args:
        docs: the folder of the pages.
        stage: is emptied.
        config: of Zensical.
        further: texts of other pages, by their path in the site.

    Returns:
        What is wrong, a line each; empty: nothing.
    """
    shutil.rmtree(stage, ignore_errors=True)
    pages = stage / "pages"
    shutil.copytree(docs, pages, ignore=NOT_PAGES)
    shutil.copy(config, stage / config.name)
    for path in pages.rglob("*.md"):
        path.write_text(on_the_site(path.read_text(encoding="utf-8"), path.relative_to(pages)), encoding="utf-8")
    for name, text in further.items():
        (pages / name).parent.mkdir(parents=True, exist_ok=True)
        (pages / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", config.name]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # where docstrings are read
    done = subprocess.run(command, cwd=stage, env=environment, capture_output=True, text=True, check=False)
    wrong = _complaints(done.stdout + done.stderr, done.returncode)
    listed = set(_pages_of(tomllib.loads(config.read_text(encoding="utf-8"))["project"]["nav"]))
    found = {str(path.relative_to(pages)) for path in pages.rglob("*.md")}
    wrong += [f"{page}: is not in the navigation of {config.name}" for page in sorted(found - listed)]
    wrong += [f"{page}: is in the navigation of {config.name} and does not exist" for page in sorted(listed - found)]
    return wrong + (links.dead(stage / "site") if done.returncode == 0 else [])


def _complaints(said: str, code: int) -> list[str]:
    """What Zensical and its plugins complain of, without colours and tracebacks; warnings of plugins leave its exit code 0."""
    before, _, traceback = re.sub(r"\x1b\[[\d;]*m", "", said).partition("Traceback (most recent call last)")
    lines = [line for line in before.splitlines() if line.strip() and not QUIET.match(line)]
    return lines + (traceback.splitlines()[-1:] if code else [])


def of_the_root() -> dict[str, str]:
    """The pages that stand in the project's root, with links as from docs/."""
    texts = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in OF_THE_ROOT.items()}
    return {page: TARGET.sub(lambda link: _from_docs(link[1]), text) for page, text in texts.items()}


def _from_docs(target: str) -> str:
    return OF_THE_ROOT.get(target, target.removeprefix("docs/"))


def on_the_site(text: str, page: Path) -> str:
    """The text of a page with links to what the site has in the place of folders and of the project's root."""
    up = "../" * (len(page.parts) - 1)

    def there(link: re.Match[str]) -> str:
        target = link[1].removeprefix(up) if link[1].startswith(up) else f"{page.parent}/{link[1]}"
        other = INSTEAD.get(target.rstrip("/"))
        return link[1] if other is None else up + other

    return TARGET.sub(there, text)


def _pages_of(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in its order."""
    for entry in nav:
        for what in entry.values():
            if isinstance(what, str):
                yield what
            else:
                yield from _pages_of(what)


if __name__ == "__main__":
    sys.exit(main())
