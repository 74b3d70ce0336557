"""The page in a browser: quiet, self-contained, within its width, legible in the dark and on paper.

Each check is a function that returns what is wrong, and is shown a page where something is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pdr_cli.drawing import page
from tests.drawing.documents import cases, everything, typed

PHONE, DESK = 360, 1280

# Elements that reach beyond the window, but for those inside something that scrolls; an SVG counts as a whole.
STICKING_OUT = """() => {
  const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const out = [...document.querySelectorAll('body *')].filter(e => !e.ownerSVGElement && !scrolls(e.parentElement))
    .filter(e => { const r = e.getBoundingClientRect(); return r.width && (r.right > innerWidth + 1 || r.left < -1); })
    .map(e => e.outerHTML.slice(0, 80));
  const page = document.documentElement.scrollWidth;
  return page > innerWidth ? [`the page is ${page} wide`, ...out] : out;
}"""
# Labels of charts and maps that their picture cuts off, by more than a pixel.
CUT_OFF = """() => [...document.querySelectorAll('svg text')].filter(t => {
  const r = t.getBoundingClientRect(), s = t.ownerSVGElement.getBoundingClientRect();
  return r.width && (r.left < s.left - 1 || r.right > s.right + 1 || r.top < s.top - 1 || r.bottom > s.bottom + 1);
}).map(t => t.textContent.trim())"""
WITHOUT_WORDS = """() => [
  ...[...document.querySelectorAll('img')].filter(e => !e.alt),
  ...[...document.querySelectorAll('svg')].filter(e => e.getAttribute('aria-hidden') !== 'true'
      && !(e.getAttribute('role') === 'img' && e.getAttribute('aria-label'))),
].map(e => e.outerHTML.slice(0, 80))"""
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
TEXT = "() => getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number)"
INVISIBLE = """selector => [...document.querySelectorAll(selector)].filter(e => {
  const r = e.getBoundingClientRect();
  return !e.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true}) || r.width < 5 || r.height < 5;
}).map(e => e.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every section, several models and long names."""
    made = everything()
    for name in ("a-model-with-a-rather-long-name-of-its-own", "third"):
        for section in ("scores", "skill", "kinds", "efficiency", "calibration"):
            made[section][name] = made[section]["pdr"]
        made["card"]["models"][name] = made["card"]["models"]["pdr"]
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, typed(made), cases(members=0))
    return path.read_text()


class Shown:
    """A page as a browser shows it, with what it asked for and complained of on the way."""

    def __init__(self, browser: Any, path: Path, source: str, width: int = DESK, **options: Any) -> None:
        path.write_text(source)
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.fetched = [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]

    def luminance(self, what: str = BACKGROUND) -> float:
        """Of the page's ground or text, 0 to 255."""
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), self.page.evaluate(what), strict=True))

    def missing_in_print(self) -> list[str]:
        """Figures and tables that paper would not show."""
        self.page.emulate_media(media="print")
        return list(self.page.evaluate(INVISIBLE, "figure, figure svg, table"))


def with_body(source: str, more: str) -> str:
    return source.replace("</main>", f"{more}</main>")


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser, source, tmp_path):
    shown = Shown(browser, tmp_path / "a.html", source)
    assert (shown.fetched, shown.complaints) == ([], [])
    broken = Shown(
        browser, tmp_path / "b.html", with_body(source, '<img alt="x" src="nowhere.png"><script>x()</script>')
    )
    assert [Path(url).name for url in broken.fetched] == ["nowhere.png"]
    assert len(broken.complaints) == 2


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_nothing_overflows(browser, source, tmp_path, width):
    shown = Shown(browser, tmp_path / "a.html", source, width)
    shown.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.page.evaluate(STICKING_OUT) == []
    broken = Shown(browser, tmp_path / "b.html", with_body(source, '<div style="width: 3000px">wide</div>'), width)
    assert len(broken.page.evaluate(STICKING_OUT)) == 2


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_no_label_is_cut_off(browser, source, tmp_path, width):
    shown = Shown(browser, tmp_path / "a.html", source, width)
    assert shown.page.evaluate(CUT_OFF) == []
    broken = Shown(
        browser, tmp_path / "b.html", source.replace("</style>", "svg text {font-size: 70px !important}</style>"), width
    )
    assert len(broken.page.evaluate(CUT_OFF)) > 10


def test_every_picture_has_words(browser, source, tmp_path):
    shown = Shown(browser, tmp_path / "a.html", source)
    assert shown.page.evaluate(WITHOUT_WORDS) == []
    broken = Shown(browser, tmp_path / "b.html", with_body(source, '<svg viewBox="0 0 1 1"></svg><img src="data:,">'))
    assert len(broken.page.evaluate(WITHOUT_WORDS)) == 2


def test_the_page_is_dark_in_the_dark(browser, source, tmp_path):
    light, dark = (Shown(browser, tmp_path / f"{s}.html", source, color_scheme=s) for s in ("light", "dark"))
    assert (light.luminance(), light.luminance(TEXT)) == (pytest.approx(255), pytest.approx(36, abs=10))
    assert dark.luminance() < 40
    assert dark.luminance(TEXT) > 200
    axis = (
        "() => getComputedStyle(document.querySelector('.charts svg text')).fill.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert dark.luminance(axis) > 150 > 120 > light.luminance(axis)
    broken = Shown(
        browser, tmp_path / "b.html", source.replace("prefers-color-scheme: dark", "width: 1px"), color_scheme="dark"
    )
    assert broken.luminance() == pytest.approx(255)


def test_paper_shows_every_figure_and_every_table_in_light_colours(browser, source, tmp_path):
    shown = Shown(browser, tmp_path / "a.html", source, color_scheme="dark")
    assert shown.missing_in_print() == []
    assert shown.luminance() == pytest.approx(255)
    broken = Shown(
        browser,
        tmp_path / "b.html",
        source.replace("</style>", "@media print {figure {display: none !important}}</style>"),
    )
    assert len(broken.missing_in_print()) >= 2 * (3 * 6 + 5)  # figures and their pictures
    closed = Shown(browser, tmp_path / "c.html", source.replace("details::details-content", "nothing"))
    assert closed.missing_in_print() != []  # without that rule the closed tables would be lost


def test_pixels_stay_sharp(browser, source, tmp_path):
    shown = Shown(browser, tmp_path / "a.html", source)
    how = "() => [...new Set([...document.querySelectorAll('.maps svg image')].map(i => getComputedStyle(i).imageRendering))]"
    assert shown.page.evaluate(how) == ["pixelated"]
