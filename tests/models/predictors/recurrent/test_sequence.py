"""Unrolling, teaching and anchoring, on a predictor simple enough to do by hand."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.anchors.simple import Persistence
from pdr_cli.models.fusion import NoFusion
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.recurrent.sequence import Recurrent, patch_size, patched_grid
from tests.models.builders import training_batch, training_forward

ANCHORS = {"none": None, "persistence": Persistence(Frames(4, 1, (8, 8)))}


class Counts(Recurrent):
    """Gives the frame it saw plus one; remembers how many it has seen."""

    def begin(self, frame: torch.Tensor) -> int:
        return 0

    def step(self, frame: torch.Tensor, memory: int) -> tuple[torch.Tensor, int]:
        return frame + 1, memory + 1

    def training_terms(self, memory: int) -> dict[str, torch.Tensor]:
        return {"seen": torch.tensor(float(memory))}


class Silent(Counts):
    """Gives zeros."""

    def step(self, frame: torch.Tensor, memory: int) -> tuple[torch.Tensor, int]:
        return torch.zeros_like(frame), memory + 1


def observed() -> torch.Tensor:
    return torch.arange(2 * 3 * 1 * 5 * 6, dtype=torch.float32).view(2, 3, 1, 5, 6)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_frames_come_back_from_patches_as_they_were(patch: int) -> None:
    last = observed()[:, -1:]
    assert torch.equal(Counts(patch)(observed(), 3), torch.cat([last + 1, last + 2, last + 3], dim=1))


def last(seen: torch.Tensor, first: int, n: int) -> torch.Tensor:
    """Persistence."""
    return seen[:, -1:].expand(-1, n, -1, -1, -1)


def test_anchored_silence_is_persistence() -> None:
    assert torch.equal(Silent(2)(observed(), 4, anchor=last), observed()[:, -1:].expand(-1, 4, -1, -1, -1))


def test_anchored_steps_start_from_the_last_observed_frame() -> None:
    # At each step the frame fed in, plus one, on top of the last observed frame a: 2a + 1, then a + (2a + 1) + 1.
    a = observed()[:, -1]
    assert torch.equal(Counts(1)(observed(), 2, anchor=last), torch.stack([2 * a + 1, 3 * a + 2], dim=1))


def test_what_it_makes_of_observed_frames_counts_as_much_per_frame() -> None:
    # Zeros observed, ones predicted for frames 2 and 3 of 3: squared error 1, times 2 such frames over 4 forecast ones.
    _, terms = training_forward(Counts(1), torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 4, 1, 4, 4), 0.0)
    assert float(terms["observed_loss"]) == pytest.approx(2 / 4)
    assert float(terms["seen"]) == 6, "3 observed and 3 of 4 forecast frames are fed in"


def test_observed_frames_count_where_they_are_known() -> None:
    # As above, but of the second and third frame only the upper half is known: half of the squared errors is left.
    known = torch.ones(1, 7, 1, 4, 4, dtype=torch.bool)
    known[:, 1:3, :, 2:] = False
    _, terms = training_forward(Counts(1), torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 4, 1, 4, 4), 0.0, known=known)
    assert float(terms["observed_loss"]) == pytest.approx(1 / 4)


def test_one_observed_frame_has_nothing_before_it() -> None:
    _, terms = training_forward(Counts(1), torch.zeros(1, 1, 1, 4, 4), torch.zeros(1, 2, 1, 4, 4), 0.0)
    assert set(terms) == {"seen"}


def test_targets_are_shown_ever_more_rarely() -> None:
    torch.manual_seed(0)
    # 1 - p/0.78 of 2000 x 3 draws; a standard deviation of their mean is below 0.0065.
    for progress, expected in ((0.0, 1.0), (0.39, 0.5), (0.585, 0.25), (0.78, 0.0), (1.0, 0.0)):
        shown = Counts(1).teacher_mask(Batch(torch.zeros(2000, 4, 1, 1, 1), 4, progress=progress))
        assert shown.shape == (2000, 7)
        assert shown[:, :4].all()
        assert float(shown[:, 4:].float().mean()) == pytest.approx(expected, abs=0.026)


def test_the_whole_model_asks_it_for_all_frames_at_once() -> None:
    calls = []
    predictor = Counts(1)
    predictor.register_forward_hook(lambda module, args, out: calls.append(out.shape[1]))
    model = PDR(predictor, None, NoFusion(1))
    assert torch.equal(model(Batch(observed(), 7)).coarse[:, 6], observed()[:, -1] + 7)
    assert calls == [7]


@pytest.mark.parametrize(("anchor", "expected"), [("none", 0.0), ("persistence", 1.0)])
def test_the_whole_model_anchors_it(anchor: str, expected: float) -> None:
    model = PDR(Silent(1), None, NoFusion(1), ANCHORS[anchor])
    x, y = torch.ones(1, 2, 1, 4, 4), torch.ones(1, 3, 1, 4, 4)
    assert (model(Batch(x, 3)).fused == expected).all()
    assert (model(training_batch(x, y), "train").fused == expected).all()


def test_only_predictors_that_can_be_taught_are() -> None:
    x, y = observed(), observed()
    forecast = PDR(Counts(1), None, NoFusion(1))(training_batch(x, y), "train")
    assert torch.equal(forecast.fused[:, 2], y[:, 1] + 1), "the target before it was fed in"
    assert set(forecast.terms) == {"seen", "observed_loss"}
    plain = PDR(torch.nn.Identity(), None, NoFusion(1))(training_batch(x, y), "train")
    assert torch.equal(plain.fused, x)
    assert plain.terms == {}


def test_a_frozen_predictor_forecasts_as_ever_in_training() -> None:
    seen = []
    predictor = Counts(1)
    predictor.scale = torch.nn.Parameter(torch.ones(()))
    predictor.register_forward_hook(lambda module, args, out: seen.append(module.training))
    model = PDR(predictor, None, NoFusion(1))
    model.freeze_predictor()
    forecast = model.train()(training_batch(observed(), observed()), "train")
    assert torch.equal(forecast.fused, model.eval()(Batch(observed(), 3)).fused), "no target was fed in"
    assert forecast.terms == {}
    assert seen == [False, False]
    assert not predictor.scale.requires_grad
    assert model.fusion.train().training


def test_patches_need_an_even_number_of_units() -> None:
    assert [patch_size(n) for n in (2, 4)] == [2, 4]
    with pytest.raises(ConfigError, match="n_s is 3"):
        patch_size(3)


def test_the_grid_of_patches_covers_the_frame() -> None:
    assert patched_grid((9, 12), 4) == (3, 3)


def test_training_needs_a_target() -> None:
    with pytest.raises(ValueError, match="needs a target"):
        Counts(1).training_forward(Batch(observed(), 3))
