"""Scores of ensembles: beside the package `scores`, closed forms, and what each is of a single forecast."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scores.probability import crps_for_ensemble

from pdr_cli.verification import ensembles, scores
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.statistics import Sample

DIMS = ("m", "b", "t", "c", "y", "x")
SETTING = Setting(np.array([2.0, 5.0]), area=np.array([[1.0], [2.0], [3.0]]) * np.ones(4))


def sample(M: int, shape: tuple[int, ...] = (3, 2, 2, 3, 4), missing: float = 0.0, seed: int = 0) -> Sample:
    """Members and truth that are alike, and some cells that all lack."""
    random = np.random.default_rng(seed)
    members, truth = random.normal(size=(M, *shape)), random.normal(size=shape)
    lacking = random.random(shape) < missing
    members, truth = np.where(lacking, np.nan, members), np.where(lacking, np.nan, truth)
    return Sample(members.mean(axis=0), truth, masked=missing > 0, members=members if M > 1 else None)


def value(name: str, found: Sample) -> np.ndarray:
    """The score of each frame and channel."""
    bound = scores.build([name], SETTING)[name]
    above, below = bound.statistic.count(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        return bound.score.finish(above / below)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("M", [2, 7])
def test_crps_is_that_of_scores(M: int, missing: float) -> None:
    found = sample(M, missing=missing)
    members, truth = xr.DataArray(found.members, dims=DIMS), xr.DataArray(found.truth, dims=DIMS[1:])
    each = crps_for_ensemble(members, truth, "m", method="fair", preserve_dims="all").transpose(*DIMS[1:])
    np.testing.assert_allclose(value("crps", found), each.mean(("y", "x")).values, rtol=1e-12)
    weighted = each.weighted(xr.DataArray(SETTING.area, dims=("y", "x"))).mean(("y", "x"))
    np.testing.assert_allclose(value("crps_lat", found), weighted.values, rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_single_forecast_is_an_ensemble_of_one(missing: float) -> None:
    found = sample(1, missing=missing)
    np.testing.assert_allclose(value("crps", found), value("mae", found))
    np.testing.assert_allclose(value("energy", found), value("rmse", found))
    np.testing.assert_allclose(value("best_rmse", found), value("rmse", found))
    np.testing.assert_allclose(value("best_psnr", found), value("psnr", found))
    assert np.isnan(value("spread_skill", found)).all()
    assert np.isnan(value("coverage", found)).all()


def test_members_like_the_truth_have_the_scores_of_the_normal_distribution() -> None:
    found = sample(10, (4000, 1, 2, 3, 4))
    crps, spread, inside = (value(name, found).mean() for name in ("crps", "spread_skill", "coverage"))
    assert crps == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
    pooled = [part.sum() for part in scores.build(["spread_skill"], SETTING)["spread_skill"].statistic.count(found)]
    assert np.sqrt(pooled[0] / pooled[1]) == pytest.approx(1, abs=0.02)
    assert spread == pytest.approx(1, abs=0.2)
    assert inside == pytest.approx(0.8, abs=0.01)


def test_too_timid_and_too_sure_are_told_apart() -> None:
    found = sample(10, (400, 1, 2, 3, 4))
    assert found.members is not None
    for factor, low, high in ((0.5, 0.3, 0.65), (2.0, 1.4, 2.2)):
        mean = found.members.mean(axis=0)
        other = Sample(mean, found.truth, members=mean + factor * (found.members - mean))
        assert low < value("spread_skill", other).mean() < high
    assert value("coverage", found).mean() > 0.6


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_energy_score_is_its_definition(missing: float) -> None:
    found = sample(4, missing=missing)
    members, truth = found.members, found.truth
    assert members is not None

    def size(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.nanmean(x**2, axis=(-2, -1)))

    expected = np.mean([size(x - truth) for x in members], axis=0)
    apart = [size(a - b) for i, a in enumerate(members) for j, b in enumerate(members) if i != j]
    np.testing.assert_allclose(value("energy", found), expected - np.mean(apart, axis=0) / 2, rtol=1e-12)


def test_the_energy_score_sees_fields_that_do_not_hang_together() -> None:
    """Members shuffled cell by cell have the same CRPS, and a worse energy score."""
    random = np.random.default_rng(0)
    level = random.normal(size=(12, 300, 1, 2, 1, 1))
    members, truth = level * np.ones((3, 4)), random.normal(size=(300, 1, 2, 1, 1)) * np.ones((3, 4))
    whole = Sample(members.mean(axis=0), truth, members=members)
    shuffled = random.permuted(members, axis=0)
    apart = Sample(shuffled.mean(axis=0), truth, members=shuffled)
    assert value("crps", apart).mean() == pytest.approx(value("crps", whole).mean(), rel=1e-9)
    assert value("energy", apart).mean() > 1.02 * value("energy", whole).mean()


def test_the_best_member_is_one_of_each_window() -> None:
    found = sample(5)
    assert found.members is not None
    errors = ((found.members - found.truth) ** 2).mean(axis=(2, 3, 4, 5))
    best = found.members[errors.argmin(axis=0), np.arange(3)]
    alone = Sample(best, found.truth)
    np.testing.assert_allclose(value("best_rmse", found), value("rmse", alone))
    assert value("best_psnr", found).mean() >= value("psnr", alone).mean() - 1e-9


def test_fair_scores_of_a_wrong_member_do_not_hide_it() -> None:
    assert ensembles.fair(np.array([[0.0], [4.0]]), np.array([0.0]))[0] == pytest.approx(2 - 2)
    assert ensembles.fair(np.array([[0.0], [0.0], [4.0]]), np.array([0.0]))[0] == pytest.approx(4 / 3 - 8 / 6)
