"""The page: whole and well-formed, every number on it, nothing in it that a name could break."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdr_cli.drawing import maps, page, strips, summary
from pdr_cli.drawing.album import Album
from pdr_cli.errors import OutputError
from pdr_cli.verification.cases import Case
from tests.drawing.documents import case, cases, document, everything, typed

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page: its text, its attributes, and whether every element that opens is closed in turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        self.mistakes += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def written(tmp_path: Path, made: dict, shown=(), name: str = "report.html") -> Page:
    page.write(tmp_path / name, typed(made), shown)
    return Page((tmp_path / name).read_text())


class NoFiles(Album):
    """An album that keeps its pictures to the page: drawing them again as PNGs is half the work."""

    def draw(self, name, how):
        pass


def page_of(made: dict, shown=()) -> Page:
    """The page alone."""
    return Page(page._page(typed(made), shown, NoFiles(Path(), typed(made))))


@dataclass(frozen=True)
class Written:
    """A page in a file, with its pictures beside it: `paths` is what `page.write` returned."""

    path: Path
    paths: list[Path]
    source: str
    page: Page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The page of `everything` with the three cases, which the tests only read."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    paths = page.write(path, typed(everything()), cases())
    source = path.read_text()
    return Written(path, paths, source, Page(source))


def test_the_reader_of_these_tests_sees_what_is_wrong():
    assert Page("<p>a</p>").mistakes == []
    assert Page("<div><p>a</div>").mistakes != []
    assert Page("<div>").mistakes == ["<div> is never closed"]


def test_a_page_with_everything_is_well_formed_and_small(whole):
    assert whole.page.mistakes == []
    ids = [a["id"] for _, a in whole.page.attributes if a.get("id")]
    assert len(ids) == len(set(ids))
    assert whole.path.stat().st_size < 3e6


def numbers_in(value) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers_in(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers_in(v)]
    return [value] if isinstance(value, (int, float)) else []


def ways_to_write(number: float) -> set[str]:
    """A number to any decimals that keep it within 1 %."""
    ways = {summary.number(number, decimals) for decimals in range(7)}
    return {w for w in ways if float(w.replace(",", "").replace("−", "-")) == pytest.approx(number, rel=0.01)}


def test_every_number_of_the_tables_is_on_the_page(whole):
    made = everything()
    text = whole.page.text
    words = set(text.split())
    for number in set(numbers_in([made[k] for k in ("scores", "concentration", "warping", "efficiency")])):
        assert ways_to_write(number) & words, f"{number} is nowhere"
    assert not ways_to_write(0.777) & words  # and a number that is not in the document is not
    for row in made["skill"]["pdr"].values():
        assert f"+{100 * row['overall']:.0f}" in text
        assert "{:.0f} to {:.0f}".format(*(100 * v for v in row["interval"])) in text
        assert all(f"{v:.4f}" in text for key in ("lead", "low", "high") for v in row[key])


def test_the_protocol_is_on_the_page(whole):
    text = whole.page.text
    for said in (
        "204 test windows", "2013-11-09 00:00 to 2013-12-31 18:00", "lead times 6 h to 12 h", "standard", "honest",
        "26 blocks of 8 windows, 2,000 resamples", "1,234 of 98,760", "pdr evaluate 'my air.nc' -m runs/a", "ab12" * 16,
        "sha256:" + "cd34" * 16, "7,654,321 parameters", "Gaussian 11 x 11, range 1", "2.13.0+cpu", "2020-01-02T03:04:05Z",
    ):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize("name", ["<b>&", '"><script>alert(1)</script>', "{{ 7 * 7 }}", "a'b"])
def test_names_are_text_whatever_they_contain(name):
    made = everything()
    text = repr(made).replace("'pdr'", repr(name)).replace("'t2m'", repr(name)).replace("'K'", repr(name))
    made = eval(text)  # the document above, with the name in every place a name can be
    shown = page_of(made, [Case(**(vars(case("best")) | {"model": name}))])
    assert shown.mistakes == []
    assert shown.tags["script"] == 0
    assert shown.tags["b"] == 1  # the headline's figure
    assert name in shown.text
    assert any(name in (a.get("aria-label") or "") for tag, a in shown.attributes if tag == "svg")


def test_nothing_is_fetched(whole):
    assert whole.page.tags["script"] == 0
    links = [
        v
        for _, a in whole.page.attributes
        for k, v in a.items()
        if k in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    style = re.search(r"<style>(.*?)</style>", whole.source, re.DOTALL)[1]
    assert "@import" not in style
    assert "url(" not in style


def test_every_picture_says_what_it_shows_with_a_number(whole):
    pictures = [a for tag, a in whole.page.attributes if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(pictures) >= 3 * 6 + 5  # three cases of six panels, five charts
    assert all(a["role"] == "img" and re.search(r"\d", a["aria-label"]) for a in pictures)
    said = " ".join(a["aria-label"] for a in pictures)
    assert "pdr 1.500 K at 6 h to 2.500 K at 12 h" in said
    # (270 - 270.5, 280 - 279, 0): the largest is 1
    assert "Largest in any bin: pdr 1.000 K" in said
    # 2^3.5 / 8 over 2^3 is √2 / 8 = 17.7 %
    assert "truth's power at the shortest waves: pdr 18 %" in said.replace("&#x27;", "'")


def test_every_picture_is_a_file_too(whole):
    paths, folder = whole.paths, whole.path.with_suffix("")
    assert paths[0] == whole.path
    assert sorted(p.name for p in paths[1:]) == sorted(
        ["score-rmse.png", "score-bias.png", "skill.png", "spectra.png", "calibration.png"]
        + [f"case-{label}.png" for label in ("best", "median", "worst")]
    )
    assert {p.parent for p in paths[1:]} == {folder}
    for path in paths[1:]:
        assert np.asarray(Image.open(path).convert("L")).std() > 5
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in paths[1:])


def test_what_the_document_lacks_is_left_out(whole):
    bare = page_of(document()).text
    for heading in (
        "Spectra and calibration",
        "Further measures",
        "Concentration of values",
        "Warping error",
        "Interval.",
        "By lead time",
    ):
        assert heading in whole.page.text
        assert (heading in bare) == (heading == "By lead time")
    assert "Best forecast" not in bare
    assert page_of(document(skill={}, metrics=["rmse"])).mistakes == []


def test_one_lead_time_needs_no_chart_against_it(tmp_path):
    made = document(lead=[6])
    for row in [*made["scores"].values(), made["skill"]["pdr"]]:
        for entry in row.values():
            entry.update({k: entry[k][:1] for k in ("lead", "low", "high") if k in entry})
    page = written(tmp_path, made)
    assert "lead time 6 h" in page.text
    assert [p.name for p in (tmp_path / "report").iterdir()] == []


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_scores_that_are_not_numbers_are_dashes(missing):
    made = document()
    made["scores"]["climatology"]["rmse"] = {"overall": missing, "lead": [missing, missing]}
    made["scores"]["climatology"]["bias"] = {"overall": missing, "lead": [missing, missing]}
    made["skill"]["pdr"]["climatology"] = {"overall": missing, "interval": [missing, missing], "lead": [missing] * 2}
    page = page_of(made)
    assert page.text.count("–") >= 2 + 1 + 2 * 3 + 3
    assert not re.search(r"\b(nan|inf|none)\b", page.text, re.IGNORECASE)


def test_several_models_each_have_their_colour():
    made = document()
    for name in ("second", "third"):
        made["scores"][name] = made["scores"]["pdr"]
        made["skill"][name] = made["skill"]["pdr"]
        made["kinds"][name] = "model"
    page = page_of(made)
    assert all(name in page.text for name in ("second", "third"))
    strokes = [a["stroke"] for tag, a in page.attributes if tag == "line" and "stroke" in a]
    assert sorted(set(strokes)) == sorted(
        {"var(--model-0)", "var(--model-1)", "var(--model-2)", "var(--reference-0)", "var(--reference-1)"}
    )


@pytest.mark.parametrize("rgb", [False, True])
def test_video_is_shown_in_seconds_and_in_its_colours(rgb):
    made = document(lead=[0.04, 0.08], lead_units="seconds", period="5 clips", units="", variables=["gray"])
    page = page_of(made, cases(kind="video", rgb=rgb))
    assert page.mistakes == []
    assert "lead times 0.04 s to 0.08 s" in page.text
    assert "5 clips" in page.text
    assert "+0.12 s" in page.text  # three frames ahead at 25 a second
    bars = [a for tag, a in page.attributes if tag == "svg" and "colour scale" in (a.get("aria-label") or "")]
    assert len(bars) == 3 * (1 if rgb else 2)  # colours themselves need no scale, errors do


def test_both_channels_of_traffic_are_shown():
    page = page_of(document(variables=["inflow", "outflow"]), cases(kind="traffic"))
    assert all(
        f"{label} forecast, {name}" in page.text for label in ("Best", "Worst") for name in ("inflow", "outflow")
    )


def test_a_model_without_gaussians_shows_none(tmp_path):
    page = written(tmp_path, document(), cases(gaussians=False))
    assert page.mistakes == []
    assert "Gaussians" not in page.text
    assert (tmp_path / "report" / "case-best.png").is_file()


def test_all_cases_share_their_colour_scales():
    """Scales come from all cases: the worst reaches 500, and the best is drawn on the same scale."""
    best, worst = case("best"), case("worst")
    worst.truth.values[-1] = 500
    view = maps.views_of(best.observed)[0]
    values, errors = strips._scales(view, [best, worst])
    assert values.high == 500
    assert errors.high == pytest.approx(-errors.low)
    assert errors.high > 150  # 500 less at most 320 K


def test_missing_truth_is_no_obstacle():
    shown = case("best")
    shown.truth.values[..., :5, :] = np.nan
    assert page_of(document(), [shown]).mistakes == []


def test_a_page_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="mkdir"):
        page.write(tmp_path / "none" / "a.html", typed(document()))
    (tmp_path / "report").write_text("mine")
    with pytest.raises(OutputError, match="name another report"):
        page.write(tmp_path / "report.html", typed(document()))
    assert (tmp_path / "report").read_text() == "mine"
    with pytest.raises(OutputError, match="name another report"):
        page.write(tmp_path / "nosuffix", typed(document()))
