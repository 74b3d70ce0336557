"""The grids: every variant is a configuration, and the paper's numbers are where they belong."""

from __future__ import annotations

import pytest

from pdr_cli import config
from pdr_cli.ablation import catalogue as ablations
from pdr_cli.ablation.catalogue import find
from pdr_cli.choices import ABLATIONS
from pdr_cli.errors import UsageError

NAMED = {"loss", "init", "fusion", "lambda", "gaussians", "kernel", "downsample", "adapter", "backbones"}


def test_every_grid_that_is_promised_is_there() -> None:
    assert set(ABLATIONS.own) >= NAMED


@pytest.mark.parametrize("name", sorted(ABLATIONS.own))
def test_every_variant_is_a_configuration_of_its_own(name: str) -> None:
    preset = {"predictive": "weather-latent", "scenes": "scenes-small"}.get(name, "taxibj")
    resolved = [
        config.load(preset, [f"{key}={value}" for key, value in variant.settings.items()])
        for variant in find(name).variants
    ]
    assert len({one.model_dump_json() for one in resolved}) == len(resolved)
    assert len({variant.name for variant in find(name).variants}) == len(resolved)


def test_published_settings_have_the_published_result() -> None:
    # Table 1's row of PDR; the preset says with which settings it was trained.
    taxibj, weather = config.load("taxibj"), config.load("weatherbench")
    for name in ("fusion", "lambda", "init", "kernel"):
        for variant in find(name).variants:
            best = variant.paper.get("TaxiBJ MSE") == "0.2807"
            assert best == _agrees(variant, taxibj), (name, variant.name)
    for name in ("gaussians", "downsample", "kernel"):
        for variant in find(name).variants:
            assert (variant.paper["WeatherBench MSE"] == "1.071") == _agrees(variant, weather), (name, variant.name)


def _agrees(variant: ablations.Variant, preset: config.Config) -> bool:
    tables = preset.model_dump()
    # auto is the published rate, which pools either benchmark's frame to 16 x 16 or 16 x 32.
    tables["model"]["downsample"] = 2
    return all(tables[key.split(".")[0]][key.split(".")[1]] == value for key, value in variant.settings.items())


def test_predictor_gains_in_the_table_are_those_of_the_paper() -> None:
    # Table 4: TAU loses 7.83 % of its MSE, the MLP-Mixer 8.05 %; the HorNet's 4.16 % is a misprint of 3.66 %.
    rows = {variant.name: variant.paper for variant in find("backbones").variants}
    for name, gain in (("tau", 7.83), ("mlpmixer", 8.05), ("hornet", 3.66)):
        before, after = (float(rows[row]["WeatherBench MSE"]) for row in (name, f"{name} + pdr"))
        assert 100 * (1 - after / before) == pytest.approx(gain, abs=0.005)
    assert not rows["convmixer"]


def test_controls_stand_beside_the_adapters() -> None:
    assert [v.name for v in find("adapter").variants] == ["predictor alone", "flatten", "mlp", "local", "conv"]


def test_misspelt_grid_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="'kernel'"):
        find("kernal")
