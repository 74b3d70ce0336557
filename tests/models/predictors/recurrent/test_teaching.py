"""What single predictors add to training."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Batch
from pdr_cli.models.predictors.recurrent import phydnet, predrnn
from pdr_cli.models.predictors.recurrent.e3dlstm import DeepConv, recall
from tests.models.builders import training_forward
from tests.models.predictors.recurrent.builders import small, travelling_waves


def empty(batch: int, in_steps: int, steps: int, progress: float) -> Batch:
    """A batch whose sizes and progress matter only."""
    return Batch(torch.zeros(batch, in_steps, 1, 1, 1), steps, progress=progress)


def test_decoupling_is_zero_for_increments_without_likeness_and_one_for_parallel_ones() -> None:
    model = small("predrnnv2").train()
    torch.nn.init.dirac_(model.adapter.weight)
    of_c = torch.zeros(1, 8, 2, 2)
    of_c[..., 0, 0] = 1.0
    elsewhere = of_c.flip(-1)
    with torch.no_grad():
        (without,), (opposite,) = model.coupling(of_c, elsewhere), model.coupling(of_c, -3 * of_c)
    assert float(without) == 0
    assert float(opposite) == pytest.approx(1), "opposite directions are as alike as equal ones"


def test_decoupling_is_measured_in_training_alone() -> None:
    model, frames = small("predrnnv2"), travelling_waves(5)
    for mode, expected in ((model.train, True), (model.eval, False)):
        mode()
        _, terms = training_forward(model, frames[:, :3], frames[:, 3:], 1.0)
        assert ("decoupling" in terms) is expected


def test_decoupling_falls_when_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    last = {}
    for weight in (0.0, 1.0):
        monkeypatch.setattr(predrnn, "DECOUPLING_WEIGHT", weight)
        model, frames = small("predrnnv2").train(), travelling_waves(5)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(8):
            forecast, terms = training_forward(model, frames[:, :3], frames[:, 3:], 1.0)
            loss = torch.nn.functional.mse_loss(forecast, frames[:, 3:]) + terms["decoupling"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        monkeypatch.setattr(predrnn, "DECOUPLING_WEIGHT", 1.0)
        _, terms = training_forward(model, frames[:, :3], frames[:, 3:], 1.0)
        last[weight] = float(terms["decoupling"].detach())
    assert last[1.0] < 0.8 * last[0.0]


def test_reverse_sampling_hides_observed_frames_at_first() -> None:
    model = small("predrnnv2")
    torch.manual_seed(0)
    # Three quarters of the span: 1 - exp(-2.5)/2 = 0.959 of observed frames, 1/4 of later ones. 2000 x 4 and 2000 x 2
    # draws: a standard deviation below 0.008.
    for progress, early, late in ((0.0, 0.5, 0.5), (0.39, 0.5, 0.5), (0.585, 0.959, 0.25), (1.0, 1.0, 0.0)):
        shown = model.teacher_mask(empty(2000, 4, 3, progress)).float()
        assert shown.shape == (2000, 6)
        assert float(shown[:, :4].mean()) == pytest.approx(early, abs=0.03)
        assert float(shown[:, 4:].mean()) == pytest.approx(late, abs=0.03)


def test_the_first_frame_is_never_hidden() -> None:
    model, frames = small("predrnnv2").train(), travelling_waves(3)
    model.teacher_mask = lambda batch: torch.zeros(2, 2, dtype=torch.bool)
    changed = frames.clone()
    changed[:, 1] += 1
    with torch.no_grad():
        first, other, moved = (
            training_forward(model, x[:, :2], frames[:, 2:], 0.0)[0] for x in (frames, changed, frames + 1)
        )
    assert torch.allclose(first, other, atol=1e-6), "the second is hidden"
    assert not torch.allclose(first, moved, atol=1e-4)


def test_moments_of_a_central_difference() -> None:
    # k = (-1, 0, 1)/2 across, on the middle row of 7 x 7: sum v k = 1, sum v^3 k / 3! = 1/6, sum v^5 k / 5! = 1/120, and
    # nothing of even order or down the rows.
    k = torch.zeros(7, 7, dtype=torch.float64)
    k[3, 2], k[3, 4] = -0.5, 0.5
    m = phydnet.moment_matrix(7)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[0, 1], expected[0, 3], expected[0, 5] = 1, 1 / 6, 1 / 120
    assert torch.allclose(m @ k @ m.T, expected)


def test_moment_constraint_vanishes_for_exact_derivatives_alone() -> None:
    model = small("phydnet")
    inverse = torch.linalg.inv(phydnet.moment_matrix(7))
    wanted = torch.eye(49, dtype=torch.float64).view(49, 1, 7, 7)
    filters = (inverse @ wanted @ inverse.T).expand(-1, 8, -1, -1)
    with torch.no_grad():
        model.physical.derivatives.weight.copy_(filters)
        assert float(model.training_terms(None)["moments"]) == pytest.approx(0, abs=1e-6)
        # One weight of one filter of one channel off by 1: at the centre it is the moment of order (0, 0), and no other.
        # 1 over 49 filters of 49 moments.
        model.physical.derivatives.weight[5, 2, 3, 3] += 1
        assert float(model.training_terms(None)["moments"]) == pytest.approx(1 / 49**2, rel=1e-3)


def test_teacher_forcing_is_for_a_whole_batch_or_none() -> None:
    model = small("phydnet")
    torch.manual_seed(0)
    draws = torch.stack([model.teacher_mask(empty(3, 2, 4, 1 / 6)) for _ in range(400)])  # half of the span: 1/2
    assert draws[:, :, :2].all()
    later = draws[:, :, 2:].flatten(1)
    assert (later.all(dim=1) == later.any(dim=1)).all()
    assert float(later.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert not model.teacher_mask(empty(3, 2, 4, 1 / 3))[:, 2:].any()


def test_phydnet_knows_two_depths() -> None:
    assert small("phydnet", n_s=4)(travelling_waves(3), 2).shape == (2, 2, 2, 9, 10)
    with pytest.raises(ConfigError, match="n_s is 6"):
        small("phydnet", n_s=6)


def test_recall_attends_to_all_past_cells() -> None:
    # One place, three past cells c: softmax(q·c) weights. q = (1, 0), c = (ln 1, 5), (ln 2, 6), (ln 5, 7): weights 1/8,
    # 2/8 and 5/8, so the second channel is (5 + 12 + 35)/8 = 6.5.
    def cell(a: float, b: float) -> torch.Tensor:
        return torch.tensor([a, b]).view(1, 2, 1, 1, 1)

    past = [cell(0.0, 5.0), cell(0.6931472, 6.0), cell(1.6094379, 7.0)]
    assert float(recall(cell(1.0, 0.0), past)[0, 1]) == pytest.approx(6.5, abs=1e-5)


def test_deep_convolution_looks_ahead_within_its_window_only() -> None:
    conv, x = DeepConv(1, 1), torch.rand(1, 1, 2, 6, 6)
    out = conv(x)
    assert out.shape == x.shape
    other = x.clone()
    other[:, :, 0] += 1
    assert torch.allclose(conv(other)[:, :, 1], out[:, :, 1]), "the second place sees itself and the zeros after it"


def test_prednet_passes_errors_of_both_signs_upward() -> None:
    model = small("prednet")
    frame = torch.full((1, 2, 12, 12), 0.25)
    guess = [torch.full((1, 2, 12, 12), 1.0), torch.zeros(1, 4, 6, 6), torch.zeros(1, 8, 3, 3)]
    lowest = model.errors(frame, guess)[0]
    assert (lowest[:, :2] == 0.75).all()
    assert (lowest[:, 2:] == 0).all()
    assert (model.errors(2 * guess[0], guess)[0][:, 2:] == 1).all()


def test_mau_forgets_after_its_reach() -> None:
    # Five past states are held: the first is gone at the sixth step.
    model = small("mau").eval()
    frames = model.fold(travelling_waves(6))
    memory = model.begin(frames[:, 0])
    first = None
    for t in range(6):
        _, memory = model.step(frames[:, t], memory)
        first = memory.past_temporal[0][-1] if t == 0 else first
        held = any(past is first for past in memory.past_temporal[0])
        assert held == (t < 5)
        assert len(memory.past_spatial[1]) == 5
