import itertools
import re
from pathlib import Path

import pytest
import tomli_w

from pdr_cli import config
from pdr_cli.errors import ConfigError
from pdr_cli.settings import parse_duration, parse_interval

PRESETS = {"demo", "human36m", "kth", "taxibj", "traffic-small", "video-small", "weather-small", "weatherbench"}
SPACE, LARGE = {"scenes-small", "scenes"}, {"era5"}
LATENT = {f"{data}-{kind}" for data in ("weather", "video", "kth") for kind in ("latent", "ensemble")}
PAPER = {"taxibj-paper", "weatherbench-paper", "kth-paper", "human36m-paper"}


def test_the_presets_are_there() -> None:
    assert set(config.preset_names()) >= PRESETS | PAPER | LATENT | SPACE | LARGE


@pytest.mark.parametrize("name", sorted(PRESETS | PAPER | LATENT | SPACE | LARGE))
def test_every_key_of_a_preset_is_explained_above_it(name: str) -> None:
    lines = config.preset_path(name).read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"\w+ = ", line):
            assert above.startswith("# "), line


@pytest.mark.parametrize("name", sorted(PRESETS | PAPER | LATENT | SPACE | LARGE))
def test_a_dumped_configuration_reads_back_the_same(name: str, tmp_path: Path) -> None:
    first = config.load(name)
    (tmp_path / f"{name}.toml").write_text(config.dump(first))
    assert config.load(str(tmp_path / f"{name}.toml")) == first


def test_papers_numbers_are_the_papers() -> None:
    settings = {n: config.load(n).model for n in ("taxibj", "weatherbench", "kth", "human36m")}
    assert {n: (m.gaussians, m.kernel_size, m.downsample) for n, m in settings.items()} == {
        "taxibj": (300, 15, 2.0),
        "weatherbench": (300, 15, 2.0),
        "kth": (400, 51, 8.0),
        "human36m": (400, 51, 16.0),
    }


def test_set_reaches_every_key_with_its_type() -> None:
    loaded = config.load(
        "demo", ["train.lr=1e-4", "model.kernel_size=auto", "data.size=[64,48]", "batch=3", "data.variables=u,v"]
    )
    assert loaded.train.lr == 1e-4
    assert (loaded.train.batch, loaded.data.size, loaded.data.variables) == (3, [64, 48], ["u", "v"])
    scene = config.load("scenes-small", ["scene.latents=true", "scene.parts=[0.3,0.2,0.5]"]).scene
    assert scene is not None
    assert scene.latents == "true", "a choice that TOML takes for a truth value"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.learning_rate=1", "unknown key"),
        ("train.lrr=1", "Did you mean 'train.lr'"),
        ("modle.hid_s=8", "Did you mean 'model.hid_s'"),
        ("train.lr", "expected key=value"),
        ("train.lr=fast", "valid number"),
        ("train.budget=soon", "is not a duration"),
        ("train.batch=0", "greater than or equal to 1"),
        ("model.dropout=1", "less than 1"),
        ("data.test_period=last month", "is not a period"),
        ("data.train_period=28d", "is not a period"),
        ("data.train_period=2015/2010", "ends before it begins"),
        ("data.protocol=fair", "'honest' or 'openstl'"),
        ("latent.drop=none", "--preset weather-latent"),
    ],
)
def test_bad_overrides_say_what_is_wrong(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.load("demo", [override])


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'taxibj'"):
        config.load("taxi")


def test_unknown_and_missing_keys_in_a_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "demo"\n[train]\nlearning_rate = 1\n')
    with pytest.raises(ConfigError, match=r"unknown key train\.learning_rate"):
        config.load(str(path))
    path.write_text("[train]\nlr = 1e-3\n")
    with pytest.raises(ConfigError, match="key data is missing"):
        config.load(str(path))


def test_extends_takes_the_rest_from_another_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "demo"\n[train]\nlr = 1e-5\n')
    mine, demo = config.load(str(tmp_path / "mine.toml")), config.load("demo")
    assert mine.train.lr == 1e-5
    assert mine.model == demo.model
    assert mine.preset == "mine"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("90", 90), ("3m", 180), ("2m30s", 150), ("1h30m", 5400), ("", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("", None),
        ("2016", ("2016", "2016")),
        ("2010/2015", ("2010", "2015")),
        ("2010/2010-05", ("2010", "2010-05")),
        ("2010-03-01T06/2011", ("2010-03-01T06", "2011")),
    ],
)
def test_periods(text: str, interval: tuple[str, str] | None) -> None:
    assert parse_interval(text) == interval


def test_the_benchmarks_are_divided_as_published() -> None:
    weather, traffic = config.load("weatherbench").data, config.load("taxibj").data
    assert (weather.train_period, weather.val_period, weather.test_period) == ("2010/2015", "2016", "2017/2018")
    assert traffic.test_period == "28d"
    assert {config.load(name).data.protocol for name in PRESETS} == {"honest"}


def test_a_configuration_from_before_these_keys_is_read_as_it_was(tmp_path: Path) -> None:
    values = config.load("demo").model_dump(exclude_none=True)
    for table, later in config.ADDED_LATER.items():
        if table not in values:
            continue
        values[table] = {key: value for key, value in values[table].items() if key not in later}
    (tmp_path / "demo.toml").write_text(tomli_w.dumps(values))
    # Where a preset says otherwise today: models of then were trained with zeros beyond the last column, without bounds,
    # without earlier cycles, averages and baselines, on frames, and stayed the model where their anchor was better.
    then = [
        "model.inputs=frames",
        "train.ema=0",
        "train.out_of_fold=true",
        "model.periodic=none",
        "data.bounds=none",
        "data.back=[]",
        "train.baselines=false",
        "train.cpu_budget=",
        "train.fallback=false",
        "train.card_windows=0",
    ]
    assert config.load(str(tmp_path / "demo.toml")) == config.load("demo", then)


def test_scenes_of_before_moved(tmp_path: Path) -> None:
    values = config.load("scenes-small").model_dump(exclude_none=True)
    for key in config.ADDED_LATER["scene"]:
        del values["scene"][key]
    (tmp_path / "scenes-small.toml").write_text(tomli_w.dumps(values))
    assert config.load(str(tmp_path / "scenes-small.toml")) == config.load("scenes-small")
