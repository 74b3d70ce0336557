import numpy as np
import pytest

from pdr_cli.verification import aggregation, scores
from pdr_cli.verification.aggregation import Blocks, Tally
from pdr_cli.verification.setting import Setting
from pdr_cli.verification.statistics import Sample


def counted(errors: np.ndarray, blocks: Blocks) -> Tally:
    """A tally of forecasts that are off by `errors` [n, τ] everywhere."""
    one = Tally(scores.build(["mse", "rmse"], Setting(np.ones(1))), blocks, np.ones(1))
    forecast = np.broadcast_to(errors[..., None, None, None], (*errors.shape, 1, 2, 2))
    one.add(Sample(forecast, np.zeros_like(forecast)), np.arange(len(errors)))
    return one


def test_blocks_hold_windows_that_share_frames() -> None:
    # Windows of 8 frames that start at 0 ... 19 of one series and 0 ... 3 of another.
    places = np.array([(0, i) for i in range(20)] + [(1, i) for i in range(4)])
    blocks = aggregation.blocks(places, 8)
    assert blocks.of_window.tolist() == [0] * 8 + [1] * 8 + [2] * 4 + [3] * 4
    assert (blocks.count, blocks.longest) == (4, 8)
    assert blocks.draws is None  # four blocks are too few to promise anything


def test_many_windows_do_not_make_many_blocks() -> None:
    places = np.stack([np.zeros(10_000, int), np.arange(10_000)], axis=1)
    blocks = aggregation.blocks(places, 8)
    assert blocks.count == aggregation.MOST_BLOCKS
    assert np.all(np.diff(blocks.of_window) >= 0)
    clips = np.stack([np.arange(1000), np.zeros(1000, int)], axis=1)
    assert aggregation.blocks(clips, 8).count == aggregation.MOST_BLOCKS


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Means of 40 independent blocks: about 95 of 100 intervals must hold the true mean square, 1 (percentile intervals of
    # skewed sums fall a little short; 85 is four standard deviations below 95).
    rng = np.random.default_rng(0)
    blocks = Blocks(np.arange(40))
    inside = 0
    for _ in range(100):
        result = counted(rng.standard_normal((40, 1)), blocks).result(["v"])["mse"]
        inside += result.low[0] <= 1 <= result.high[0]
    assert 85 <= inside <= 100


def test_resampling_whole_blocks_widens_the_interval_of_dependent_errors() -> None:
    rng = np.random.default_rng(1)
    errors = np.repeat(rng.standard_normal(20), 20)[:, None]  # twenty windows at a time fare alike
    apart, together = Blocks(np.arange(400) // 2), Blocks(np.arange(400) // 20)
    widths = []
    for blocks in (apart, together):
        result = counted(errors, blocks).result(["v"])["mse"]
        widths.append(result.high[0] - result.low[0])
    assert widths[1] > 2 * widths[0]


def test_skill_against_itself_is_exactly_zero_and_not_significant() -> None:
    errors = np.random.default_rng(2).standard_normal((40, 3))
    blocks = Blocks(np.arange(40))
    found = aggregation.skill(counted(errors, blocks), counted(errors.copy(), blocks))
    assert (found.overall, found.lead) == (0.0, [0.0] * 3)
    assert (found.interval, found.significant) == ([0.0, 0.0], False)


def test_a_clear_difference_is_significant_and_a_chance_one_is_not() -> None:
    rng = np.random.default_rng(3)
    blocks = Blocks(np.arange(60))
    errors = rng.standard_normal((60, 1))
    better = aggregation.skill(counted(0.5 * errors, blocks), counted(errors, blocks))
    # Paired: every resample halves every error, so the skill is 1 - 0.25 in each of them.
    assert better.overall == pytest.approx(0.75)
    assert better.interval == pytest.approx([0.75, 0.75])
    assert better.significant
    chance = aggregation.skill(counted(rng.standard_normal((60, 1)), blocks), counted(errors, blocks))
    assert not chance.significant
    low, high = chance.interval
    assert low < 0 < high


def test_without_blocks_enough_there_is_no_interval() -> None:
    blocks = Blocks(np.arange(aggregation.FEWEST_BLOCKS - 1))
    errors = np.ones((len(blocks.of_window), 1))
    assert counted(errors, blocks).result(["v"])["mse"].low is None
    assert aggregation.skill(counted(errors, blocks), counted(errors, blocks)).interval is None


def test_memory_does_not_grow_with_the_windows() -> None:
    sizes = []
    for windows in (1000, 4000):
        blocks = aggregation.blocks(np.stack([np.zeros(windows, int), np.arange(windows)], axis=1), 2)
        one = counted(np.ones((windows, 3)), blocks)
        sizes.append(sum(a.nbytes + b.nbytes for a, b in one.sums.values()))
    assert sizes[0] == sizes[1]
