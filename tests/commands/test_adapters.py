"""Every adapter from training to every file that is made of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli import config, splat
from pdr_cli.choices import INITIALIZATIONS
from pdr_cli.inference import model as inference
from pdr_cli.inference.intake import Intake
from pdr_cli.models.gaussians.base import GaussianAdapter
from pdr_cli.models.gaussians.control import ConvControl, MLPControl
from pdr_cli.models.gaussians.local import LocalGS
from pdr_cli.models.gaussians.predgs import PredGS
from pdr_cli.runs import modelfile
from tests.cli import pdr
from tests.conftest import tiny_settings

KINDS = {"flatten": PredGS, "local": LocalGS, "mlp": MLPControl, "conv": ConvControl}
DRAWS = {"flatten": 9, "local": 7 * 8, "mlp": 0, "conv": 0}  # cells of 2 x 2 on the 13 x 15 of `weather`


@pytest.mark.parametrize("name", KINDS)
def test_adapter_is_trained_and_loaded(
    adapter_run: Callable[[str], Path], weather: Path, tmp_path: Path, name: str
) -> None:
    model = pdr_cli.load(adapter_run(name)).loaded
    assert type(model.network.adapter) is KINDS[name]
    assert model.card.config.model.adapter == name
    assert pdr("predict", weather, "-o", "f.nc", "-m", adapter_run(name), "-q").code == 0
    with xr.open_dataset(tmp_path / "f.nc") as made:
        assert np.isfinite(made.t2m.values).all()


@pytest.mark.parametrize(("name", "says"), [("flatten", "PredGS"), ("local", "LocalGS"), ("mlp", "MLPControl")])
def test_dry_run_says_what_paints_and_with_how_many(weather: Path, name: str, says: str) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--dry-run", "--adapter", name, *tiny_settings())
    assert result.code == 0, result.err
    assert re.search(rf"\+ {says} [\d,]+ \({DRAWS[name] or 'no'} Gaussians\)", result.out)


@pytest.mark.parametrize("name", ["flatten", "local"])
def test_gaussians_redraw_the_layer(
    adapter_run: Callable[[str], Path], weather: Path, tmp_path: Path, name: str
) -> None:
    """The model's are density-normalised; the file's amplitudes are values at the centre, whatever the model's."""
    result = pdr("export", "-m", adapter_run(name), "--input", weather, "-o", "gaussians.nc")
    assert (result.code, f"{DRAWS[name]} Gaussians" in result.out) == (0, True), result.err
    with xr.open_dataset(tmp_path / "gaussians.nc") as made, xr.open_dataset(weather) as data:
        drawn = splat.render_dataset(made).numpy() / made.amplitude_t2m.attrs["network_unit"]
        layer = pdr_cli.load(adapter_run(name)).loaded.run(data.t2m.values[-4:][None, :, None]).layer
    assert layer is not None
    assert np.allclose(drawn, layer[0], atol=1e-5)
    assert layer.std() > 1e-4
    assert pdr("export", "-m", adapter_run(name), "--input", weather, "-o", "layers.png").code == 0
    assert (tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("output", ["g.nc", "g.png"])
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_control_has_no_gaussians_to_show_and_says_so(
    adapter_run: Callable[[str], Path], weather: Path, tmp_path: Path, name: str, output: str
) -> None:
    result = pdr("export", "-m", adapter_run(name), "--input", weather, "-o", output)
    assert result.code == 2
    says = f"draws no Gaussians (fusion concat, adapter {name}); expected a model with adapter flatten, local or deform"
    assert says in result.last
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("name", KINDS)
def test_report_shows_gaussians_where_there_are_some(
    adapter_run: Callable[[str], Path], weather: Path, name: str
) -> None:
    from pdr_cli.verification import cases

    model = inference.load(adapter_run(name) / "model.safetensors", "cpu")
    (series,) = Intake(model).open([weather])
    case = cases.case_of(model, series, 10, "best", 1.5)
    if not DRAWS[name]:
        assert case.gaussians is case.painted is case.coarse is None
        return
    assert case.gaussians is not None
    assert case.gaussians["x"].shape == (DRAWS[name],)
    assert case.painted is not None
    assert case.painted.shape == (4, 1, 13, 15)


@pytest.mark.parametrize("name", KINDS)
def test_renderers_operations_are_counted_where_it_renders(adapter_run: Callable[[str], Path], name: str) -> None:
    from pdr_cli.verification import efficiency

    model = inference.load(adapter_run(name) / "model.safetensors", "cpu")
    adapter = model.network.adapter
    K = adapter.kernel_size if isinstance(adapter, GaussianAdapter) else 0
    # 20 operations for each value of a lattice and 2 for the one channel, in 4 frames.
    assert efficiency._renderer_flops(model, 4) == 4 * DRAWS[name] * K**2 * 22


@pytest.mark.parametrize("coords", ["absolute", "offset"])
@pytest.mark.parametrize("init", ["grid", "corner", "color", "random", "none"])
def test_every_init_trains_and_is_found_again(weather: Path, tmp_path: Path, init: str, coords: str) -> None:
    given = ["--preset", "demo", "--data", str(weather), "-o", "run", "--steps", "2", "-q"]
    result = pdr("train", *given, *tiny_settings(f"init={init}", f"coords={coords}"))
    if (init, coords) == ("none", "offset"):
        assert (result.code, "model.init none gives them none" in result.last) == (78, True)
        return
    assert result.code == 0, result.err
    adapter = pdr_cli.load(tmp_path / "run").loaded.network.adapter
    assert isinstance(adapter, PredGS)
    assert adapter.start is INITIALIZATIONS.find(init)
    if init != "color":
        return
    with xr.open_dataset(weather) as data:
        last_observed = data.t2m.values[3]  # the first training window starts with the file; 4 frames are observed
    brightest = np.argsort(-last_observed, axis=None, kind="stable")[:9]
    found = (adapter.anchors.numpy() + 1) * [7, 6]  # columns 0 to 14, rows 0 to 12
    assert np.allclose(found, np.stack([brightest % 15, brightest // 15], axis=-1), atol=1e-5)


def test_a_resumed_run_keeps_the_places_it_started_with(weather: Path, tmp_path: Path) -> None:
    base = [
        "train",
        "--data",
        str(weather),
        "-q",
        *tiny_settings("init=corner", "coords=offset", "train.schedule=constant"),
    ]
    assert pdr(*base, "--preset", "demo", "-o", "whole", "--steps", "4").code == 0
    assert pdr(*base, "--preset", "demo", "-o", "cut", "--steps", "2").code == 0
    assert pdr(*base, "--preset", "demo", "-o", "cut", "--steps", "4", "--resume").code == 0
    whole, cut = (modelfile.read(tmp_path / run / "model.safetensors").weights for run in ("whole", "cut"))
    assert whole["adapter.anchors"].equal(cut["adapter.anchors"])


@pytest.mark.parametrize(
    ("loss", "terms"),
    [
        ("l1ssim", {"l1", "ssim"}),
        ("ssim", {"l1", "ssim"}),
        ("l1", {"l1"}),
        ("mse", {"mse"}),
        ("l2reg", {"mse", "divergence"}),
    ],
)
def test_loss_is_the_one_asked_for(weather: Path, tmp_path: Path, loss: str, terms: set[str]) -> None:
    given = ["--preset", "demo", "--data", str(weather), "-o", "run", "--steps", "1", "-q", "--loss", loss]
    assert pdr("train", *given, *tiny_settings("train.l1_weight=0.25")).code == 0
    step = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert set(step) - {"event", "step", "seconds", "cpu_seconds", "lr", "loss", "coarse_loss"} == terms
    expected = {
        "l1ssim": lambda s: 0.25 * s["l1"] + 0.75 * (1 - s["ssim"]),
        "ssim": lambda s: 1 - s["ssim"],
        "l1": lambda s: s["l1"],
        "mse": lambda s: s["mse"],
        "l2reg": lambda s: s["mse"] + 0.1 * s["divergence"],
    }
    assert step["loss"] == pytest.approx(expected[loss](step), rel=1e-5)


def test_misspelt_adapter_is_one_line(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--adapter", "flaten")
    assert (result.code, "Did you mean 'flatten'" in result.last) == (78, True)


@pytest.mark.parametrize("preset", ["taxibj", "weatherbench", "kth", "human36m"])
def test_paper_presets_take_the_paper_at_its_word(preset: str) -> None:
    product, paper = config.load(preset), config.load(f"{preset}-paper")
    words = paper.model.model_dump()
    expected = {
        "adapter": "flatten",
        "adapter_input": "coarse",
        "mlp_depth": 1,
        "init": "grid",
        "coords": "absolute",
        "normalize": "density",
        "amplitude": "sigmoid",
        "fusion": "concat",
        "anchor": "none",
        "hidden": 256,
    }
    assert expected.items() <= words.items()
    assert (paper.train.loss, paper.train.l1_weight, paper.train.coarse_weight) == ("l1ssim", 0.5, 0)
    assert paper.data.protocol == "openstl"
    for key in ("gaussians", "kernel_size", "downsample", "backbone", "hid_t"):
        assert words[key] == getattr(product.model, key)


def test_a_paper_preset_trains(traffic: Path) -> None:
    given = ["--preset", "taxibj-paper", "--data", str(traffic), "-o", "run", "--steps", "2", "-q"]
    small = ("kernel_size=auto", "batch=2", "data.protocol=honest", "data.test_period=")
    assert pdr("train", *given, *tiny_settings(*small)).code == 0
