"""What every test may ask for."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

from pdr_cli.drawing import pictures
from pdr_cli.splat import build, native
from tests.builders import traffic_file, video_file, weather_file
from tests.cli import pdr

settings.register_profile("fuzz", max_examples=1000, deadline=None)  # of `make fuzz`
# A time limit for an example fails on a loaded machine, whatever the example.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Files of a quarter of a minute and more, which start first: one that starts last leaves a core without work.
LONGEST = (
    *("test_native.py", "test_cuda_on_cpu.py", "test_half_on_cpu.py", "test_ranks.py", "test_fault_loop.py"),
    *("test_adapters.py", "test_train.py"),
    *("test_hindcast.py", "test_missing_data.py", "test_build.py", "test_translators.py", "test_evaluate.py"),
    *("test_training.py", "test_memory.py", "test_cuda_compiles.py", "test_pictures.py", "test_page_in_browser.py"),
    *("test_page.py", "test_export.py", "test_step.py", "test_tutorials.py", "test_site.py"),
)

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# The smallest network that still has every part; after a few steps it may be worse than its anchor, and is the model still.
TINY = [
    "hid_s=4",
    "hid_t=8",
    "n_t=2",
    "mlp_ratio=2",
    "gaussians=9",
    "hidden=8",
    "log_every=1",
    "val_windows=8",
    "card_windows=0",
]
TINY += ["fallback=false", "baselines=false", "anchor=persistence", "inputs=frames", "ema=0"]
BASELINES = ("--set", "train.baselines=true")
# Of runs that are calibrated.
CALIBRATED = ["--set", "fusion=none", "--set", "val_windows=40"]


def pytest_configure(config: pytest.Config) -> None:
    """Build the renderer before the workers start, which would each build it where the cache is empty.

    Its autograd node is used by the tests that are about it: no other test starts its build in the background.
    """
    os.environ.setdefault("PREDGSPLAT_NODE", "off")
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        native.unavailable("cpu")
        with suppress(build.BuildError):
            build.library("node")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; `--no-loadscope-reorder` keeps this order among processes."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_collection_finish() -> None:
    """Exclude the modules and tests, which stay to the end, from every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real data: $PDR_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("PDR_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is not there (set PDR_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def away(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder, without the settings and the cache of whoever runs it.

    Code of others that a test before it imported is not taken for the cause of its failures.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pdr_cli.families.FOREIGN", set())
    monkeypatch.setenv("PDR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("PDR_MODEL", "PDR_DATA", "PREDGSPLAT_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; tests that ask for it are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests: playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no browser tests: chromium is not installed")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield running
        running.close()


def tiny_settings(*more: str) -> list[str]:
    """`--set` arguments of the smallest network."""
    return [part for setting in (*TINY, *more) for part in ("--set", setting)]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train the tiny network for a few steps on a file; returns the run folder.

    The curves of the first run are drawn and copied to the others: they take half of the time of a training.
    """
    drawn = tmp_path_factory.mktemp("drawn") / "curves.png"

    def curves(path: Path, metrics: Path) -> None:
        if not drawn.is_file():
            draw(drawn, metrics)
        shutil.copy(drawn, path)

    draw = pictures.curves

    def make(data: Path, *arguments: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        options = ["--preset", "demo", "--data", data, "-o", folder, "--steps", "3", "-q", *tiny_settings(), *arguments]
        with mock.patch.object(pictures, "curves", curves):
            result = pdr("train", *options)
        assert result.code == 0, result.err
        return folder

    return make


@pytest.fixture(scope="session")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 steps of 6 hours on 13 x 15, an odd grid with descending latitude."""
    return weather_file(tmp_path_factory.mktemp("weather") / "air.nc", size=(13, 15))


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 days of hourly slots, one day missing."""
    return traffic_file(tmp_path_factory.mktemp("traffic") / "city.h5", drop_days=[4])


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 frames of 32 x 32."""
    return video_file(tmp_path_factory.mktemp("video") / "clip.mp4", 180)


@pytest.fixture(scope="session")
def weather_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """A run trained on `weather`."""
    return make_run(weather, *BASELINES)


@pytest.fixture(scope="session")
def longer_weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """560 steps of 6 hours on 7 x 9, of which 56 are for validation: 41 windows, enough for intervals of 95 %."""
    return weather_file(tmp_path_factory.mktemp("longer") / "air.nc", 560, size=(7, 9))


@pytest.fixture(scope="session")
def calibrated_run(make_run: Callable[..., Path], longer_weather: Path) -> Path:
    """A run on `longer_weather` whose forecast is persistence, with intervals of 40 validation windows."""
    return make_run(longer_weather, *CALIBRATED, "--backbone", "none", "--set", "inputs=frames")


@pytest.fixture(scope="session")
def traffic_run(make_run: Callable[..., Path], traffic: Path) -> Path:
    """A run trained on `traffic`."""
    return make_run(traffic, *BASELINES)


@pytest.fixture(scope="session")
def video_run(make_run: Callable[..., Path], clip: Path) -> Path:
    """A run trained on `clip`."""
    return make_run(clip, *BASELINES)
