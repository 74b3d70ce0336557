"""Scores: what is made of the mean of a statistic, and what the number means.

RMSE is the root of the mean of squared errors, PSNR the mean of each frame's decibels. Scores of one statistic, as MSE and
RMSE, share its sums, and so does the skill.

Two conventions. `standard`: means per value, in the data's units. `openstl`: what the published tables of OpenSTL
print; errors are sums over a frame on a scale of [0, 1], and SSIM takes that range for 2 (docs/conventions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pdr_cli import choices
from pdr_cli.errors import UsageError
from pdr_cli.families import Family
from pdr_cli.trust import USER
from pdr_cli.verification import ensembles, statistics
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.statistics import Statistic

Maker = Callable[[Setting], Statistic]
CONVENTIONS = tuple(choices.SCORES_BY_CONVENTION)


def unchanged(mean: np.ndarray) -> np.ndarray:
    """The mean itself."""
    return mean


@dataclass(frozen=True)
class Score:
    """A named score.

    Args:
        statistic: makes the statistic for the data; scores with the same maker share the sums.
        units: of the score: the data's, their square, decibels, or a pure number.
        finish: makes the score of means of any shape.
        higher_is_better: False: lower, or nearer to `ideal`.
        ideal: the best value, where it is neither the lowest nor the highest.
    """

    statistic: Maker
    units: Literal["data", "data²", "dB", "1"] = "data"
    finish: Callable[[np.ndarray], np.ndarray] = unchanged
    higher_is_better: bool = False
    ideal: float | None = None

    def units_in(self, setting: Setting) -> str:
        """Units of the score for the data: "K²", "dB", "1"."""
        if self.units == "data":
            return setting.units
        if self.units == "data²":
            return f"{setting.units}²" if setting.units not in ("", "1") else setting.units
        return self.units


@dataclass(frozen=True)
class BoundScore:
    """A score with its statistic for one setting; scores that share a statistic hold the same object."""

    score: Score
    statistic: Statistic


def squared_error(setting: Setting) -> Statistic:
    """Squared errors of cells that count alike."""
    return statistics.SquaredError()


def absolute_error(setting: Setting) -> Statistic:
    """Absolute errors of cells that count alike."""
    return statistics.AbsoluteError()


def error(setting: Setting) -> Statistic:
    """Errors of cells that count alike."""
    return statistics.Error()


def squared_error_by_area(setting: Setting) -> Statistic:
    """Squared errors, weighted by area."""
    return statistics.SquaredError(_area(setting))


def absolute_error_by_area(setting: Setting) -> Statistic:
    """Absolute errors, weighted by area."""
    return statistics.AbsoluteError(_area(setting))


def error_by_area(setting: Setting) -> Statistic:
    """Errors, weighted by area."""
    return statistics.Error(_area(setting))


def anomaly_correlation(setting: Setting) -> Statistic:
    """Anomaly correlation, weighted by area on a grid of latitudes and longitudes."""
    if not setting.climate:
        raise UsageError("--metrics acc: no climatology", "that of a model's training data", "name one with -m")
    return statistics.AnomalyCorrelation(setting.area)


def decibels(setting: Setting) -> Statistic:
    """PSNR of each frame."""
    return statistics.Decibels(setting.data_range)


def similarity(setting: Setting) -> Statistic:
    """SSIM of each frame."""
    return statistics.Similarity(setting.data_range)


def perceptual_distance(setting: Setting) -> Statistic:
    """LPIPS of each frame."""
    from pdr_cli.models import lpips

    if not setting.video or setting.unit is None:
        raise UsageError("--metrics lpips is a distance between pictures, for video alone", "", "leave it out")
    if setting.lpips is None:
        raise UsageError(
            "--metrics lpips: no weights of its network",
            "--lpips-weights FILE",
            "docs/conventions.md says where the weights come from",
        )
    return statistics.PerceptualDistance(lpips.LPIPS.load(setting.lpips), *setting.unit)


def squared_frame_sum(setting: Setting) -> Statistic:
    """OpenSTL's squared errors: sums over a frame on the scale of [0, 1], means of fields."""
    return statistics.FrameSum(2, setting.unit is None)


def absolute_frame_sum(setting: Setting) -> Statistic:
    """OpenSTL's absolute errors: sums over a frame on the scale of [0, 1], means of fields."""
    return statistics.FrameSum(1, setting.unit is None)


def uniform_similarity(setting: Setting) -> Statistic:
    """OpenSTL's SSIM of each frame."""
    return _on_unit_scale(setting, statistics.UniformSimilarity())


def unit_decibels(setting: Setting) -> Statistic:
    """OpenSTL's PSNR of each frame."""
    return _on_unit_scale(setting, statistics.UnitDecibels())


def signal_to_noise(setting: Setting) -> Statistic:
    """OpenSTL's SNR of each frame."""
    return _on_unit_scale(setting, statistics.SignalToNoise())


def crps(setting: Setting) -> Statistic:
    """Fair CRPS of cells that count alike."""
    return ensembles.FairCRPS()


def crps_by_area(setting: Setting) -> Statistic:
    """Fair CRPS, weighted by area."""
    return ensembles.FairCRPS(_area(setting))


def energy(setting: Setting) -> Statistic:
    """Fair energy score of fields."""
    return ensembles.EnergyScore()


def spread_skill(setting: Setting) -> Statistic:
    """Spread of the members over the error of their mean."""
    return ensembles.SpreadSkill(setting.data_range)


def coverage(setting: Setting) -> Statistic:
    """Truths between the 10 % and 90 % quantiles of the members."""
    return ensembles.Coverage()


def best_squared_error(setting: Setting) -> Statistic:
    """Squared error of the best member."""
    return ensembles.BestSquaredError()


def best_decibels(setting: Setting) -> Statistic:
    """PSNR of the best member."""
    return ensembles.BestDecibels(setting.data_range)


MSE = Score(squared_error, "data²")
RMSE = Score(squared_error, finish=np.sqrt)
MAE = Score(absolute_error)
BIAS = Score(error, ideal=0.0)
ACC = Score(anomaly_correlation, "1", higher_is_better=True)
MSE_LAT = Score(squared_error_by_area, "data²")
RMSE_LAT = Score(squared_error_by_area, finish=np.sqrt)
MAE_LAT = Score(absolute_error_by_area)
BIAS_LAT = Score(error_by_area, ideal=0.0)
PSNR = Score(decibels, "dB", higher_is_better=True)
SSIM = Score(similarity, "1", higher_is_better=True)
LPIPS = Score(perceptual_distance, "1")
CRPS = Score(crps)
CRPS_LAT = Score(crps_by_area)
ENERGY = Score(energy)
SPREAD_SKILL = Score(spread_skill, "1", finish=np.sqrt, ideal=1.0)
COVERAGE = Score(coverage, "1", ideal=0.8)
BEST_RMSE = Score(best_squared_error, finish=np.sqrt)
BEST_PSNR = Score(best_decibels, "dB", higher_is_better=True)

OPENSTL_MSE = Score(squared_frame_sum, "data²")
OPENSTL_MAE = Score(absolute_frame_sum)
OPENSTL_RMSE = Score(squared_frame_sum, finish=np.sqrt)
OPENSTL_SSIM = Score(uniform_similarity, "1", higher_is_better=True)
OPENSTL_PSNR = Score(unit_decibels, "dB", higher_is_better=True)
OPENSTL_SNR = Score(signal_to_noise, "dB", higher_is_better=True)


def family(convention: str) -> Family:
    """The scores of a convention.

    Raises:
        UsageError: an unknown convention.
    """
    if convention not in choices.SCORES_BY_CONVENTION:
        raise UsageError(f"--convention {convention} is not known", " or ".join(CONVENTIONS))
    return choices.SCORES_BY_CONVENTION[convention]


def find(name: str, convention: str) -> Score:
    """A score of a convention, of an installed package, or of `module:Name`.

    Raises:
        UsageError: unknown, with the nearest names and the convention that has it; or not a `Score`.
    """
    known = family(convention)
    others = [c for c, other in choices.SCORES_BY_CONVENTION.items() if name in other.own and c != convention]
    if others and name not in known.names():
        raise known.unknown(name).replace(way_out=f"--convention {others[0]} has it")
    found: Any = known.find(name, USER)
    if not isinstance(found, Score):
        raise UsageError(f"--metrics {name} is a {type(found).__name__}", "a pdr_cli.verification.scores.Score")
    return found


def build(names: Sequence[str], setting: Setting, convention: str = "standard") -> dict[str, BoundScore]:
    """Scores by name, with their statistics.

    Raises:
        UsageError: an unknown name, or a score that is not defined for the data.
    """
    chosen = {name: find(name, convention) for name in names}
    made = {maker: maker(setting) for maker in dict.fromkeys(s.statistic for s in chosen.values())}
    return {name: BoundScore(score, made[score.statistic]) for name, score in chosen.items()}


def title(key: str) -> str:
    """A score, or "score:channel", as charts and tables write it: "RMSE", "bias", "RMSE of t2m"."""
    name, _, channel = key.partition(":")
    text = name if name == "bias" else name.upper() if len(name) <= 5 else name.replace("_", " ")
    return f"{text} of {channel}" if channel else text


def ideal(key: str) -> float | None:
    """The best value of a score or "score:channel"; None where it is the lowest or the highest."""
    return next((score.ideal for score in _own(key)), None)


def higher_is_better(key: str) -> bool:
    """True if more of a score, or of "score:channel", is better; False of a score of another package."""
    return any(score.higher_is_better for score in _own(key))


def _own(key: str) -> Iterator[Score]:
    """Our scores of that name, of each convention."""
    name = key.partition(":")[0]
    for known in choices.SCORES_BY_CONVENTION.values():
        if name in known.own:
            yield known.find(name)


def _area(setting: Setting) -> np.ndarray:
    if setting.area is None:
        raise UsageError(
            "--metrics *_lat: the grid has no latitudes", "a grid of latitudes and longitudes", "leave out _lat"
        )
    return setting.area


def _on_unit_scale(setting: Setting, statistic: Statistic) -> Statistic:
    if setting.unit is None:
        raise UsageError(
            "--convention openstl: ssim, psnr and snr are not defined for fields, only for data on a scale of [0, 1]",
            "mse, mae and rmse",
        )
    return statistic
