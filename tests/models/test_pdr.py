"""The whole model, and its fusions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli.errors import ConfigError
from pdr_cli.models.fusion import AddFusion, ConcatFusion, RenderedFusion
from pdr_cli.models.gaussians.initialization import brightest, centres_in, corner
from pdr_cli.models.interfaces import Batch, Frames, Fusion
from pdr_cli.models.pdr import PDR
from pdr_cli.models.registry import build, build_fusion
from tests.models.builders import options

OPTIONS: dict[str, Any] = {
    "backbone": "tau",
    "hid_s": 4,
    "hid_t": 8,
    "n_s": 2,
    "n_t": 2,
    "mlp_ratio": 2,
    "drop_path": 0.0,
    "anchor": "none",
    "gaussians": 12,
}


def small_pdr(**changes: Any) -> PDR:
    torch.manual_seed(0)
    return build(options(**OPTIONS | changes), Frames(3, 2, (13, 18)))


def observed() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 3, 2, 13, 18)


@pytest.mark.parametrize("out_steps", [2, 3, 7])
def test_forecast_has_the_asked_length_and_grid(out_steps: int) -> None:
    forecast = small_pdr()(Batch(observed(), out_steps))
    for frames in (forecast.fused, forecast.coarse, forecast.layer):
        assert frames.shape == (2, out_steps, 2, 13, 18)


def test_untrained_model_is_the_backbone_and_a_tenth_of_the_gaussians() -> None:
    model = small_pdr().eval()
    fused, coarse, rendered, _ = model(Batch(observed(), 3))
    assert torch.equal(coarse, model.predictor(observed()))
    assert torch.allclose(fused, coarse + 0.1 * rendered, atol=1e-6)
    assert 0 < (fused - coarse).abs().max() < 0.01


def test_coarse_frames_are_fed_back_and_rendered_once() -> None:
    model = small_pdr().eval()
    rendered_lengths = []
    model.adapter.register_forward_hook(lambda module, args, out: rendered_lengths.append(args[0].shape[1]))
    forecast = model(Batch(observed(), 7))
    assert torch.equal(forecast.coarse, model.predictor(observed(), 7))
    assert rendered_lengths == [7]


@pytest.mark.parametrize("adapter", ["flatten", "local", "mlp", "conv"])
def test_every_adapter_paints_the_layer_that_is_fused(adapter: str) -> None:
    model = small_pdr(adapter=adapter).eval()
    fused, coarse, layer, _ = model(Batch(observed(), 7))
    assert fused.shape == coarse.shape == layer.shape == (2, 7, 2, 13, 18)
    assert torch.equal(layer, model.adapter(coarse, observed()))
    assert torch.allclose(fused, coarse + 0.1 * layer, atol=1e-6)


# Each choice of the adapter's, and what it changes in the model that is built.
CHOICES: list[tuple[dict[str, Any], Any]] = [
    ({"gaussians": 7}, lambda m: m.adapter.count((13, 18)) == 7),
    ({"kernel_size": 9}, lambda m: m.adapter.kernel_size == 9),
    ({"downsample": 6}, lambda m: m.adapter.pool.plane == (2, 3)),
    ({"hidden": 5}, lambda m: m.adapter.mlp_scale.last.in_features == 5),
    ({"mlp_depth": 3}, lambda m: len(m.adapter.mlp_scale.middle) == 2),
    ({"init": "corner"}, lambda m: m.adapter.start is corner),
    ({"coords": "offset"}, lambda m: m.adapter.coords == "offset"),
    ({"sigma_min": 0.7}, lambda m: m.adapter.sigma_min == 0.7),
    ({"normalize": "density"}, lambda m: m.adapter.normalize == "density"),
    ({"amplitude": "linear"}, lambda m: m.adapter.amplitude == "linear"),
    ({"adapter_input": "coarse+last"}, lambda m: m.adapter.uses_last),
    ({"adapter": "local", "kernel_size": 9}, lambda m: m.adapter.kernel_size == 9),
    ({"adapter": "local", "cell_stride": 4}, lambda m: m.adapter.count((13, 18)) == 4 * 5),
    ({"adapter": "local", "per_cell": 3}, lambda m: m.adapter.count((13, 18)) == 3 * 7 * 9),
    ({"adapter": "local", "conv_width": 5}, lambda m: m.adapter.head.in_channels == 5),
    ({"adapter": "local", "conv_depth": 1}, lambda m: len(m.adapter.features.convs) == 1),
    ({"adapter": "local", "sigma_min": 0.7}, lambda m: m.adapter.sigma_min == 0.7),
    ({"adapter": "local", "normalize": "density"}, lambda m: m.adapter.normalize == "density"),
    ({"adapter": "local", "amplitude": "sigmoid"}, lambda m: m.adapter.amplitude == "sigmoid"),
    ({"adapter": "local", "adapter_input": "coarse"}, lambda m: not m.adapter.uses_last),
    ({"adapter": "conv", "cell_stride": 4}, lambda m: m.adapter.cell_stride == 4),
    ({"adapter": "conv", "conv_depth": 1}, lambda m: len(m.adapter.features.convs) == 1),
    ({"adapter": "mlp", "mlp_depth": 2}, lambda m: len(m.adapter.mlp.middle) == 1),
    ({"adapter": "mlp", "downsample": 6}, lambda m: m.adapter.pool.plane == (2, 3)),
]


@pytest.mark.parametrize(("choice", "holds"), CHOICES, ids=[str(choice) for choice, _ in CHOICES])
def test_every_choice_reaches_the_adapter(choice: dict[str, Any], holds: Any) -> None:
    usual = {"adapter": choice["adapter"]} if "adapter" in choice else {}
    assert holds(small_pdr(**choice))
    assert not holds(small_pdr(**usual))


def test_the_first_frame_is_handed_to_the_adapter() -> None:
    model, frame = small_pdr(init="color", coords="offset"), torch.rand(2, 13, 18)
    model.initialize(frame)
    assert torch.equal(model.adapter.anchors, centres_in(brightest, 12, frame).float())
    small_pdr(fusion="none").initialize(frame)


@pytest.mark.parametrize(
    ("adapter", "fusion"),
    [("flatten", "concat"), ("local", "concat"), ("mlp", "concat"), ("conv", "concat"), ("flatten", "gated")],
)
def test_every_parameter_learns(adapter: str, fusion: str) -> None:
    model = small_pdr(adapter=adapter, fusion=fusion).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the adapter's coordinates have zero weights in the first step
        optimizer.zero_grad()
        model(Batch(observed(), 6)).fused.square().mean().backward()
        optimizer.step()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_no_fusion_builds_no_adapter() -> None:
    model = small_pdr(fusion="none")
    forecast = model(Batch(observed(), 3))
    assert model.adapter is None
    assert forecast.layer is None
    assert torch.equal(forecast.fused, forecast.coarse)


def test_add_and_gs_do_what_table_8_says() -> None:
    coarse, rendered = torch.rand(1, 3, 2, 4, 5), torch.rand(1, 3, 2, 4, 5)
    assert torch.equal(AddFusion(2)(coarse, rendered), coarse + rendered)
    assert torch.equal(RenderedFusion(2)(coarse, rendered), rendered)


def fusion_of(name: str, init: str = "residual") -> Fusion:
    return build_fusion(options(fusion=name, fusion_init=init), Frames(3, 2, (5, 4)))


def test_concat_mixes_channels_of_one_frame_only() -> None:
    fusion = fusion_of("concat")
    torch.nn.init.normal_(fusion.mix.weight)
    coarse, rendered = torch.rand(2, 3, 2, 4, 5), torch.rand(2, 3, 2, 4, 5)
    weight = fusion.mix.weight[:, :, 0, 0]
    expected = torch.einsum("oc,btchw->btohw", weight, torch.cat([coarse, rendered], dim=2))
    assert torch.allclose(fusion(coarse, rendered), expected, atol=1e-6)


def test_gated_lets_through_a_tenth_at_first_and_what_it_learns_later() -> None:
    fusion = fusion_of("gated")
    coarse, rendered = torch.rand(2, 3, 2, 4, 5), torch.rand(2, 3, 2, 4, 5)
    assert torch.allclose(fusion(coarse, rendered), coarse + 0.1 * rendered)
    torch.nn.init.normal_(fusion.gate.weight)
    seen = torch.einsum("oc,btchw->btohw", fusion.gate.weight[:, :, 0, 0], torch.cat([coarse, rendered], dim=2))
    share = torch.sigmoid(seen + fusion.gate.bias[:, None, None])
    assert torch.allclose(fusion(coarse, rendered), coarse + share * rendered, atol=1e-6)


@pytest.mark.parametrize("name", ["concat", "gated"])
def test_first_forecast_is_nearly_the_coarse_one_unless_the_fusion_starts_at_random(name: str) -> None:
    coarse, rendered = torch.randn(2, 1, 3, 2, 5, 4)
    residual = fusion_of(name)(coarse, rendered)
    assert torch.allclose(residual, coarse + 0.1 * rendered, atol=1e-6)
    at_random = fusion_of(name, "random")(coarse, rendered)
    assert (at_random - residual).abs().mean() > 0.05


def test_fusion_init_reaches_the_model() -> None:
    weights = [small_pdr(fusion_init=init).fusion.mix.weight[0, :, 0, 0] for init in ("residual", "random")]
    assert weights[0].tolist() == pytest.approx([1, 0.1] if len(weights[0]) == 2 else [1, 0, 0.1, 0])
    assert not torch.equal(weights[0], weights[1])


def test_misspelt_fusion_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'concat'"):
        fusion_of("conkat")


def test_fusion_without_an_adapter_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="adapter is None"):
        PDR(torch.nn.Identity(), None, ConcatFusion(2))


def test_anchored_predictor_that_says_nothing_is_persistence() -> None:
    x = observed()
    for anchor, expected in (("none", torch.zeros(2, 1, 2, 13, 18)), ("persistence", x[:, -1:])):
        model = small_pdr(anchor=anchor, fusion="none")
        for parameter in model.predictor.dec.readout.parameters():
            torch.nn.init.zeros_(parameter)
        # 7 frames are three passes: each is anchored to the last frame it was given.
        assert torch.equal(model(Batch(x, 7)).coarse, expected.expand(-1, 7, -1, -1, -1))
