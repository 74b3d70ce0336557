import numpy as np
import pytest
import torch

from pdr_cli.data.climatology import Climatology
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.missing import Filling
from pdr_cli.data.scaling import Scaling

CPU = torch.device("cpu")
SCALING = Scaling((280.0, 5.0), (10.0, 2.0), (1.0, 1.0))
NEVER_OBSERVED = np.zeros((2, 4, 5), bool)
NEVER_OBSERVED[:, :2, 0] = True
TIMES = [np.arange(3.0), np.arange(3.0) + 10]


def encoding(method: str = "none", never_observed: np.ndarray | None = NEVER_OBSERVED) -> Encoding:
    climatology = Climatology("mean", np.full((1, 2, 4, 5), 281.0, np.float32))
    return Encoding(SCALING, Filling(np.array([279.0, 6.0]), never_observed, method, climatology))


def frames(missing: float = 0.0) -> np.ndarray:
    """[B, T, C, H, W] = [2, 3, 2, 4, 5] with a share of missing values."""
    rng = np.random.default_rng(0)
    values = rng.normal(280, 10, (2, 3, 2, 4, 5)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return values


def test_frames_come_back_in_data_units() -> None:
    given = frames()
    code = encoding(never_observed=None)
    # A network value of some 140 (280 K less 5, over 2) is rounded to 1.5e-5 of 2 units, by half of that at most.
    assert code.to_data(code.to_network(given, CPU)) == pytest.approx(given, abs=4e-5)


def test_never_observed_cells_hold_the_mean_in_the_network_and_nan_in_the_data() -> None:
    code = encoding()
    x = code.observed(frames(), TIMES, CPU)
    # (279 - 280) / 10 and (6 - 5) / 2.
    assert x[:, :, 0, :2, 0].unique().tolist() == [pytest.approx(-0.1)]
    assert x[:, :, 1, :2, 0].unique().tolist() == [0.5]
    assert np.array_equal(np.isnan(code.to_data(x)), np.broadcast_to(NEVER_OBSERVED, x.shape))


@pytest.mark.parametrize("method", ["persist", "mean", "interp"])
def test_observed_frames_are_filled_then_scaled_to_the_last_bit(method: str) -> None:
    code, given = encoding(method), frames(0.2)
    x = code.observed(given, TIMES, CPU)
    assert np.array_equal(x.numpy(), SCALING.apply(code.filling.apply(given, TIMES)))
    assert (x.dtype, bool(torch.isfinite(x).all())) == (torch.float32, True)


@pytest.mark.parametrize("method", ["none", "interp"])
def test_missing_values_of_a_target_are_zero_and_never_interpolated(method: str) -> None:
    code, given = encoding(method), frames(0.2)
    y = code.target(given, CPU).numpy()
    gaps = np.isnan(given) & ~NEVER_OBSERVED
    assert gaps.any()
    assert (y[gaps] == 0).all()
    assert np.array_equal(
        y[~gaps], SCALING.apply(np.where(NEVER_OBSERVED, code.filling.fill_never_observed(given), given))[~gaps]
    )


def test_no_gap_is_filled_where_the_model_does_not_fill() -> None:
    given = frames(0.2)
    x = encoding("none").observed(given, TIMES, CPU).numpy()
    assert np.array_equal(np.isnan(x), np.isnan(given) & ~NEVER_OBSERVED)
