"""Met²Net: the authors' tensors, and a step of training in two stages."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.predictors import met2net
from pdr_cli.models.predictors.met2net import Met2Net, VariableAttention
from tests.models.builders import build_predictor, training_batch, training_forward
from tests.models.openstl_layouts import TAXIBJ, met2net_shapes

SMALL: dict[str, Any] = {"hid_s": 4, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2, "drop_path": 0.0}


def small(channels: int = 2, **changes: Any) -> Met2Net:
    torch.manual_seed(0)
    built = build_predictor("met2net", 4, channels, **SMALL | changes)
    assert isinstance(built, Met2Net)
    return built


def frames(steps: int = 4, size: tuple[int, int] = (8, 10)) -> Tensor:
    return torch.rand(2, steps, 2, *size)


def gradients(model: Met2Net, of: Tensor) -> set[str]:
    """The parts of the network that a loss trains."""
    model.zero_grad()
    of.backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_names_and_shapes_are_the_authors() -> None:
    with torch.device("meta"):
        model = build_predictor("met2net", 4, 2, **TAXIBJ, mlp_ratio=4, drop_path=0.1, size=(32, 32))
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == met2net_shapes()


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (3, 5)])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_any_grid_and_horizon(size: tuple[int, int], steps: int) -> None:
    with torch.no_grad():
        assert small().eval()(frames(size=size), steps).shape == (2, steps, 2, *size)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_any_horizon_in_training(steps: int) -> None:
    made, terms = training_forward(small().train(), frames(), frames(steps))
    assert made.shape == (2, steps, 2, 8, 10)
    assert terms["latent_loss"].isfinite()


def test_each_stage_trains_its_own_parts() -> None:
    model = small().train()
    made, terms = training_forward(model, frames(), frames())
    assert gradients(model, terms["latent_loss"]) == {"hid_q"}
    made, _ = training_forward(model, frames(), frames())
    assert gradients(model, made.square().sum()) == {"enc_q_list", "dec_q_list"}


def test_every_trained_parameter_learns() -> None:
    model = small().train()
    made, terms = training_forward(model, frames(), frames())
    (made.square().sum() + terms["latent_loss"]).backward()
    lazy = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert lazy == []


def test_copies_start_equal_and_follow_slowly() -> None:
    model = small().train()
    assert all(torch.equal(k, q) for k, q in zip(model.hid_k.parameters(), model.hid_q.parameters(), strict=True))
    for trained in (model.enc_q_list, model.dec_q_list, model.hid_q):
        for parameter in trained.parameters():
            parameter.data += 1
    before = [p.clone() for p in model.parameters() if not p.requires_grad]
    training_forward(model, frames(), frames())
    after = [p for p in model.parameters() if not p.requires_grad]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old + (1 - met2net.MOMENTUM))


def test_copies_stay_in_a_forecast() -> None:
    model = small().eval()
    before = [p.clone() for p in model.parameters()]
    model(frames())
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_forecasts_use_the_slow_encoders_and_decoders() -> None:
    model, x = small().eval(), frames()
    expected = model(x)
    for unused in (model.enc_q_list, model.dec_q_list, model.hid_k):
        for parameter in unused.parameters():
            parameter.data.fill_(math.nan)
    assert torch.equal(model(x), expected)


def test_with_an_anchor_the_change_from_it_is_encoded() -> None:
    x, y = frames(), frames()
    plain, anchored = small().train(), small().train()
    _, terms = plain.training_forward(training_batch(x, y - 3))
    _, expected = anchored.training_forward(training_batch(x, y), lambda seen, first, n: torch.full_like(y[:, :n], 3))
    torch.testing.assert_close(terms["latent_loss"], expected["latent_loss"])


def test_missing_values_of_the_target_have_no_effect() -> None:
    x, y = frames(), frames()
    known = torch.ones(2, 8, 2, 8, 10, dtype=torch.bool)
    known[:, 5, 0, 3, 4] = False
    filled = y.clone()
    filled[:, 1, 0, 3, 4] = 50.0
    losses = [training_forward(small().train(), x, target, known=known)[1]["latent_loss"] for target in (y, filled)]
    assert torch.equal(losses[0], losses[1])


def test_two_sequences_are_learned_in_a_few_steps() -> None:
    torch.manual_seed(0)
    model, x, y = small().train(), frames(), frames()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(60):
        made, terms = training_forward(model, x, y)
        losses.append(nn.functional.mse_loss(made, y))
        optimizer.zero_grad()
        (losses[-1] + terms["latent_loss"]).backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_variables_exchange_what_they_know() -> None:
    x = frames().requires_grad_()
    small().eval()(x)[:, :, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


def test_attention_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    attention, x = VariableAttention(16), torch.rand(2, 3, 16, 4, 5)
    attention.v_post_f = nn.Sequential()
    q, k, v = (torch.stack([conv(one) for one in x]) for conv in (attention.q_Conv, attention.k_Conv, attention.v_Conv))
    expected = torch.empty_like(x)
    for head in range(8):
        share = slice(2 * head, 2 * head + 2)
        scores = torch.einsum("bichw,bjchw->bij", q[:, :, share], k[:, :, share]) / math.sqrt(2 * 4 * 5)
        expected[:, :, share] = torch.einsum("bij,bjchw->bichw", scores.softmax(dim=-1), v[:, :, share])
    torch.testing.assert_close(attention(x), expected)


def test_longitudes_go_round() -> None:
    model = small(size=(8, 16), periodic=True).double().eval()
    x = frames(size=(8, 16)).double()
    # Sums of a norm go in another order: equal up to the rounding of float64.
    assert torch.allclose(model(x.roll(4, -1)), model(x).roll(4, -1), rtol=0, atol=1e-11)


def test_other_frames_are_refused() -> None:
    with pytest.raises(DataError, match="3 frames of 2 variables; expected 4 of 2"):
        small().one_pass(frames(3))


@pytest.mark.parametrize(
    ("wrong", "says"), [({"hid_t": 12}, "hid_t is 12"), ({"n_s": 3}, "n_s"), ({"hid_s": 5}, "hid_s")]
)
def test_sizes_that_cannot_be_built_are_named(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small(**wrong)
