"""What holds for every predictor that goes frame by frame."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pdr_cli.choices import PREDICTORS
from tests.models.builders import build_predictor, training_forward
from tests.models.learning import losses_of
from tests.models.predictors.recurrent.builders import small, travelling_waves

ALL = sorted(n for n, choice in PREDICTORS.own.items() if ".recurrent." in choice.place)
ROUNDING = (
    1e-4  # over groups of few values normalisation makes rounding large; libraries round by the batch and by memory
)


@pytest.mark.parametrize("name", ALL)
def test_any_horizon_starts_alike(name: str) -> None:
    model, x = small(name).eval(), travelling_waves(3)
    with torch.no_grad():
        longest = model(x, 5)
        assert longest.shape == (2, 5, 2, 9, 10)
        assert model(x).shape == x.shape, "T frames by default"
        assert torch.allclose(model(x, 1), longest[:, :1], atol=ROUNDING)
        assert torch.allclose(model(travelling_waves(4)[:, :3], 2), longest[:, :2], atol=ROUNDING)


@pytest.mark.parametrize("name", ALL)
def test_every_observed_frame_counts(name: str) -> None:
    model, x = small(name).eval(), travelling_waves(3).requires_grad_()
    model(x, 2)[:, 1].square().sum().backward()
    for t in range(3):
        assert x.grad[:, t].any(), f"frame {t} has no influence"


@pytest.mark.parametrize("name", ALL)
def test_sequences_of_a_batch_do_not_mix(name: str) -> None:
    model, x = small(name).eval(), travelling_waves(3)
    with torch.no_grad():
        assert torch.allclose(model(x, 3)[1:], model(x[1:], 3), atol=ROUNDING)


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_learns(name: str) -> None:
    model, frames = small(name).train(), travelling_waves(7)
    forecast, terms = training_forward(model, frames[:, :4], frames[:, 4:], 0.5)
    (torch.nn.functional.mse_loss(forecast, frames[:, 4:]) + sum(terms.values())).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", ALL)
def test_two_sequences_are_learnt_in_a_few_steps(name: str) -> None:
    model, frames = small(name).train(), travelling_waves(4)
    losses = losses_of(model, frames[:, :2], frames[:, 2:], steps=12, rate=2e-2, progress=1.0)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", ALL)
def test_weights_make_the_same_model_again(name: str) -> None:
    model, x = small(name).eval(), travelling_waves(3)
    other = small(name).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
        assert not torch.allclose(other(x, 2), model(x, 2), atol=1e-3)
        other.load_state_dict(model.state_dict())
        assert torch.allclose(other(x, 2), model(x, 2), atol=ROUNDING)


@pytest.mark.parametrize("name", ALL)
def test_at_the_end_of_training_it_does_as_in_a_forecast(name: str) -> None:
    model, frames = small(name).train(), travelling_waves(7)
    x, y = frames[:, :3], frames[:, 3:]
    with torch.no_grad():
        taught, _ = training_forward(model, x, y, 1.0)
        assert torch.allclose(taught, model(x, 4), atol=ROUNDING)
        # Other targets change nothing, because none is fed in.
        assert torch.allclose(training_forward(model, x, 1 - y, 1.0)[0], taught, atol=ROUNDING)


@pytest.mark.parametrize("name", ALL)
def test_at_the_start_of_training_targets_are_fed_in(name: str) -> None:
    model, frames = small(name).train(), travelling_waves(7)
    x, y = frames[:, :3], frames[:, 3:]
    with torch.no_grad():
        torch.manual_seed(3)  # PredRNN-V2 shows half of them, by chance
        one, _ = training_forward(model, x, y, 0.0)
        torch.manual_seed(3)
        other, _ = training_forward(model, x, 1 - y, 0.0)
    assert torch.allclose(one[:, 0], other[:, 0], atol=ROUNDING), "the first forecast frame precedes all targets"
    assert not torch.allclose(one[:, 3], other[:, 3], atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_random_draws_are_torchs_own(name: str) -> None:
    model, frames = small(name).train(), travelling_waves(7)
    taught = []
    for _ in range(2):
        torch.manual_seed(5)
        taught.append(training_forward(model, frames[:, :3], frames[:, 3:], 0.2)[0])
    assert torch.allclose(*taught, atol=ROUNDING)


# hid_s, hid_t, n_t with n_s = 2; parameters for TaxiBJ, 2 x 32 x 32. Those OpenSTL publishes, 14,980,096 for ConvLSTM,
# 38,404,096 for PredRNN++, 37,863,424 for MIM and 4,409,868 for MAU, hold convolutions that nothing uses:
#   ConvLSTM   one 5x5 and one 1x1 from 256 to 128 in each of 4 cells:  4 * 26 * 256 * 128 = 3,407,872
#   PredRNN++  one 5x5 from 256 to 128 in each of 4 cells:              4 * 25 * 256 * 128 = 3,276,800
#   MIM        one 1x1 from 256 to 128 in each of 3 difference modules: 3 * 256 * 128 = 98,304
#   MAU        1x1 from 128 to 64 and from 4 to 2, with biases:         128 * 64 + 64 + 4 * 2 + 2 = 8,266
@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("convlstm", (32, 128, 4), 14_980_096 - 3_407_872),
        ("e3dlstm", (32, 128, 4), 50_987_008),
        ("mau", (32, 64, 4), 4_409_868 - 8_266),
        ("mim", (32, 128, 4), 37_863_424 - 98_304),
        ("phydnet", (32, 128, 3), 3_092_309),
        ("prednet", (32, 128, 4), 12_512_926),
        ("predrnn", (32, 128, 4), 23_658_496),
        ("predrnnpp", (32, 128, 4), 38_404_096 - 3_276_800),
        ("predrnnv2", (32, 128, 4), 23_674_880),
    ],
)
def test_parameters_are_as_many_as_published(name: str, sizes: tuple[int, int, int], expected: int) -> None:
    hid_s, hid_t, n_t = sizes
    with torch.device("meta"):
        model = build_predictor(
            name, 4, 2, hid_s=hid_s, hid_t=hid_t, n_s=2, n_t=n_t, mlp_ratio=4, drop_path=0, size=(32, 32)
        )
    assert sum(p.numel() for p in model.parameters()) == expected


# GMACs that OpenSTL prints for TaxiBJ, 4 frames to 4; its counter also counts norms, the last two models' only.
@pytest.mark.parametrize(
    ("name", "n_t", "hid_t", "printed", "tolerance"),
    [
        ("convlstm", 4, 128, 20.74, 0.005),
        ("predrnn", 4, 128, 42.40, 0.005),
        ("predrnnpp", 4, 128, 62.95, 0.005),
        ("mim", 4, 128, 64.10, 0.005),
        ("phydnet", 3, 128, 5.60, 0.02),
        ("mau", 4, 64, 6.02, 0.02),
    ],
)
def test_operations_are_as_many_as_published(name: str, n_t: int, hid_t: int, printed: float, tolerance: float) -> None:
    with torch.device("meta"), torch.no_grad():
        sizes = {"hid_s": 32, "hid_t": hid_t, "n_s": 2, "n_t": n_t}
        model = build_predictor(name, 4, 2, **sizes, mlp_ratio=4, drop_path=0, size=(32, 32)).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 4, 2, 32, 32))
    assert counter.get_total_flops() / 2e9 == pytest.approx(printed, abs=tolerance)
