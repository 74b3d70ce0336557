"""Links of a site that lead nowhere, and what its pages would fetch from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"img": "src", "script": "src", "source": "src", "iframe": "src", "video": "src", "link": "href"}
FOR_MACHINES = {"canonical", "next", "prev", "alternate"}  # links in the head that a browser does not fetch


class Page(HTMLParser):
    """The anchors of a page, where it links to and what it fetches."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if FETCHED.get(tag, "") in found and found.get("rel") not in FOR_MACHINES:
            self.fetched.append(found[FETCHED[tag]])


def dead(site: Path) -> list[str]:
    """What is wrong with the links of a site, a line each.

    A link to another site is not followed; a picture, style or script of another site is wrong, because a page needs no network.
    The page for errors, 404.html, is left out: its links hold where the site is published.
    """
    files = {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "404.html"
    }
    wrong = []
    for path, page in files.items():
        name = path.relative_to(site)
        wrong += [f"{name}: fetches {url} from elsewhere" for url in page.fetched if _elsewhere(url)]
        for link in [*page.links, *page.fetched]:
            if not _elsewhere(link) and not _leads_somewhere(link, path, files):
                wrong.append(f"{name}: {link} leads nowhere")
    return wrong


def _elsewhere(link: str) -> bool:
    parts = urlsplit(link)
    return parts.scheme not in ("", "data") or bool(parts.netloc)


def _leads_somewhere(link: str, path: Path, files: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if not parts.fragment or target not in files:
        return target.is_file()
    return unquote(parts.fragment) in files[target].anchors
