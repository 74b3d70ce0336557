"""Every predictor: as large as published, initialised as published, trainable, and steady outside training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pdr_cli.choices import TRANSLATORS
from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.layers import ChannelNorm
from pdr_cli.models.predictors.translators.gsta import GSTAGate
from pdr_cli.models.predictors.translators.hornet import RecursiveGatedConv
from pdr_cli.models.predictors.translators.metaformer import StochasticDepth
from pdr_cli.models.predictors.translators.moganet import ChannelAggregation, GatedAggregation, MultiOrderConv
from pdr_cli.models.predictors.translators.poolformer import from_neighbours
from pdr_cli.models.predictors.translators.swin import WindowAttention, window_of
from pdr_cli.models.predictors.translators.tokens import SelfAttention
from pdr_cli.models.predictors.translators.van import VANGate
from tests.models.builders import build_predictor
from tests.models.published import GFLOPS, NAMES, PARAMETERS, SETUPS, build_published

every_predictor = pytest.mark.parametrize("name", NAMES)
everywhere = pytest.mark.parametrize("setup", SETUPS)


def build_small(name: str, **changes: Any) -> nn.Module:
    """A tiny predictor of 4 frames of 2 channels on 16×24, with the widths that all of them can take."""
    options: dict[str, Any] = {"hid_s": 4, "hid_t": 32, "n_s": 2, "n_t": 3, "mlp_ratio": 2, "drop_path": 0.0}
    return build_predictor(name, 4, 2, **options | {"size": (16, 24)} | changes)


def test_the_table_names_every_translator() -> None:
    assert list(TRANSLATORS) == [*NAMES, "pfgnet"]  # which is not of the toolbox: test_pfgnet.py


@everywhere
@every_predictor
def test_published_parameter_counts(name: str, setup: str) -> None:
    count = sum(p.numel() for p in build_published(name, setup).parameters())
    assert count == PARAMETERS[name][list(SETUPS).index(setup)]


@everywhere
@every_predictor
def test_published_operations(name: str, setup: str) -> None:
    model = build_published(name, setup).eval()
    x = torch.empty(1, *SETUPS[setup].shape, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(x).shape == x.shape
    expected = GFLOPS[name][list(SETUPS).index(setup)]
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=1e-3)  # printed with 4 digits


@every_predictor
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    model = build_small(name).train()
    model(torch.rand(2, 4, 2, 16, 24)).square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


@every_predictor
def test_a_forecast_is_the_same_each_time_and_for_each_sample_alone(name: str) -> None:
    torch.manual_seed(0)
    model = build_small(name, drop_path=0.9).eval()
    x = torch.rand(2, 4, 2, 16, 24)
    with torch.no_grad():
        both = model(x)
        assert torch.equal(model(x), both)
        torch.testing.assert_close(torch.cat([model(x[:1]), model(x[1:])]), both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("simvp", "convmixer")])
def test_branches_are_dropped_in_training(name: str) -> None:
    torch.manual_seed(0)
    model = build_small(name, drop_path=0.5)
    for parameter_name, parameter in model.named_parameters():
        if "gamma" in parameter_name or "layer_scale" in parameter_name:
            nn.init.ones_(parameter)  # as small as they start, a dropped branch would not show
    freeze_norms(model.train())
    x = torch.rand(1, 4, 2, 16, 24)
    outputs = torch.stack([model(x) for _ in range(12)])
    assert (outputs - outputs[0]).abs().max() > 0


def freeze_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("out_steps", [1, 4, 9])
@every_predictor
def test_any_horizon(name: str, out_steps: int) -> None:
    x = torch.rand(1, 4, 2, 16, 24)
    with torch.no_grad():
        assert build_small(name).eval()(x, out_steps).shape == (1, out_steps, 2, 16, 24)


@every_predictor
def test_an_odd_grid_is_kept(name: str) -> None:
    # The latent plane is 8 × 12 either way.
    assert build_small(name, size=(15, 23))(torch.rand(1, 4, 2, 15, 23)).shape == (1, 4, 2, 15, 23)


@pytest.mark.parametrize(
    "wrong", [{"n_s": 3}, {"n_s": 0}, {"hid_s": 5}, {"n_t": 1}, {"drop_path": 1.0}], ids=lambda w: next(iter(w))
)
@every_predictor
def test_values_that_cannot_be_built_are_named(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_small(name, **wrong)


@pytest.mark.parametrize("name", ["hornet", "moganet", "vit", "swin", "uniformer"])
def test_widths_that_do_not_split_in_eight_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"hid_t is 36; expected a multiple of 8 for {name}, such as 32 or 40"):
        build_small(name, hid_t=36)
    with pytest.raises(ConfigError, match=r"in_steps · hid_s is 4; .* such as 8"):
        build_predictor(name, 1, 1, hid_s=4, hid_t=8, n_s=2, n_t=2, mlp_ratio=2, drop_path=0.0, size=(16, 16))


def test_simvp_names_channels_that_its_groups_do_not_divide() -> None:
    # hid_t / 2 = 16 makes 8 groups, and 4·5 channels come out.
    with pytest.raises(ConfigError, match="in_steps · hid_s is 20"):
        build_small("simvp", hid_s=5)


# A latent side of a multiple of 7 takes windows of 7; 128 rows take 128 // 16 = 8, 512 no more than that.
@pytest.mark.parametrize(("rows", "window"), [(16, 4), (14, 7), (8, 4), (64, 4), (96, 6), (128, 8), (512, 8), (2, 4)])
def test_swin_window_goes_by_the_rows(rows: int, window: int) -> None:
    assert window_of(rows) == window


@pytest.mark.parametrize(
    ("size", "near"),
    [
        # 13 × 27 places: 12 rows take windows of 4, so 24 columns; 14 rows take windows of 7, so 28.
        ((25, 53), "24 x 48 or 28 x 56"),
        # 2 rows: nothing smaller, and 4 × 12 is the next.
        ((4, 20), "8 x 24"),
        # 7 × 8 places: windows of 7 fit the rows, and 8 columns are 7 or 14.
        ((14, 16), "14 x 14 or 14 x 28"),
    ],
)
def test_a_grid_that_windows_do_not_tile_names_those_that_they_do(size: tuple[int, int], near: str) -> None:
    with pytest.raises(ConfigError, match=f"frames of {near}, or another"):
        build_small("swin", size=size)
    for words in near.split(" or "):
        rows, columns = map(int, words.split(" x "))
        build_small("swin", size=(rows, columns))


@pytest.mark.parametrize("name", ["swin", "mlpmixer"])
def test_frames_of_another_grid_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="the latent plane"):
        build_small(name)(torch.rand(1, 4, 2, 20, 28))


# Fan-out normal is √(2 / (k·k·out/groups)), PyTorch's own is uniform in ±1/√fan_in; d is 64, 8d is 512.
@pytest.mark.parametrize(
    ("name", "tensor", "std"),
    [
        ("simvp", "0.conv1.weight", (3 * 64) ** -0.5),
        ("simvp2", "1.block.attn.proj_1.weight", (2 / 64) ** 0.5),
        ("simvp2", "1.block.attn.spatial_gating_unit.conv1.weight", (2 / 128) ** 0.5),
        ("tau", "1.block.attn.proj_1.weight", (3 * 64) ** -0.5),
        ("tau", "1.block.mlp.fc1.weight", (2 / 512) ** 0.5),
        ("van", "1.block.attn.spatial_gating_unit.conv0.weight", (2 / 25) ** 0.5),
        ("convnext", "1.block.conv_dw.weight", (2 / 49) ** 0.5),
        ("convnext", "1.block.mlp.fc2.weight", (2 / 64) ** 0.5),
        ("hornet", "1.block.gnconv.proj_in.weight", (2 / 128) ** 0.5),
        ("hornet", "1.block.pwconv1.weight", 0.02),
        ("moganet", "1.block.attn.value.DW_conv2.weight", (2 / 49) ** 0.5),
        ("moganet", "1.block.mlp.fc1.weight", (2 / 512) ** 0.5),
        ("vit", "1.block.attn.qkv.weight", 0.02),
        ("vit", "1.block.mlp.fc2.weight", 0.02),
        ("swin", "1.block.attn.proj.weight", 0.02),
        ("swin", "1.block.attn.relative_position_bias_table", 0.02),
        ("uniformer", "0.block.conv1.weight", (2 / 64) ** 0.5),
        ("uniformer", "0.block.pos_embed.weight", (2 / 9) ** 0.5),
        ("uniformer", "1.block.pos_embed.weight", (3 * 9) ** -0.5),
        ("uniformer", "1.block.mlp.fc1.weight", 0.02),
        ("poolformer", "1.block.mlp.fc1.weight", 0.02),
        ("mlpmixer", "1.block.mlp_tokens.fc1.weight", 0.02),
        ("mlpmixer", "1.block.mlp_channels.fc2.weight", 0.02),
        ("convmixer", "1.block.conv_dw.weight", (2 / 121) ** 0.5),
        ("convmixer", "1.block.conv_pw.weight", (2 / 64) ** 0.5),
    ],
)
def test_weights_start_as_published(name: str, tensor: str, std: float) -> None:
    torch.manual_seed(0)
    weight = build_small(name, hid_s=16, hid_t=64, mlp_ratio=8).state_dict()[f"hid.enc.{tensor}"]
    # The smallest, the table, has 49·8 values: three standard errors of a standard deviation are 3/√(2·392) = 11 %.
    assert weight.std().item() == pytest.approx(std, rel=0.11)


@pytest.mark.parametrize(
    ("name", "tensors", "value"),
    [
        ("simvp2", ["layer_scale_1", "layer_scale_2"], 1e-2),
        ("van", ["layer_scale_1", "layer_scale_2"], 1e-2),
        ("convnext", ["gamma"], 1e-6),
        ("hornet", ["gamma1", "gamma2"], 1e-6),
        ("moganet", ["layer_scale_1", "layer_scale_2", "attn.sigma", "mlp.sigma"], 1e-5),
        ("uniformer", ["gamma_1", "gamma_2"], 1e-6),
        ("poolformer", ["layer_scale_1", "layer_scale_2"], 1e-5),
    ],
)
def test_layer_scales_start_as_published(name: str, tensors: list[str], value: float) -> None:
    state = build_small(name).state_dict()
    for tensor in tensors:
        assert torch.all(state[f"hid.enc.1.block.{tensor}"] == value)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("simvp", "tau")])
def test_biases_start_at_zero(name: str) -> None:
    state = build_small(name).state_dict()
    blocks = {k: v for k, v in state.items() if k.startswith("hid.enc.1.block") and k.endswith("bias")}
    if name == "uniformer":  # its embedding of position keeps PyTorch's own initialisation
        blocks.pop("hid.enc.1.block.pos_embed.bias")
    assert blocks
    assert not [k for k, v in blocks.items() if v.abs().max() > 0]


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = StochasticDepth(0.25)(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(out.amax(dim=(1, 2)), out.amin(dim=(1, 2)))
    assert out.mean().item() == pytest.approx(1, abs=0.03)  # 3 standard errors: 3·√(0.25/0.75/4000)


def test_stochastic_depth_rests_outside_training() -> None:
    x = torch.ones(50, 1, 1, 1)
    assert torch.equal(StochasticDepth(0.9).eval()(x), x)


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    mine, theirs = SelfAttention(32), nn.MultiheadAttention(32, 8, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.qkv.weight,
            "in_proj_bias": mine.qkv.bias,
            "out_proj.weight": mine.proj.weight,
            "out_proj.bias": mine.proj.bias,
        }
    )
    tokens = torch.rand(2, 10, 32)
    torch.testing.assert_close(mine(tokens), theirs(tokens, tokens, tokens)[0])


def attend_window_by_window(attn: WindowAttention, plane: Tensor, window: int, shift: int) -> Tensor:
    """The definition, place by place: plane [H', W', d]; windows start at `shift` and reach around the edges."""
    rows, columns, d = plane.shape
    out = torch.empty_like(plane)
    offsets = [(y, x) for y in range(window) for x in range(window)]
    q, k, v = attn.qkv(plane).view(rows, columns, 3, 8, d // 8).unbind(2)  # each [H', W', heads, d/heads]
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            places = [((top + y + shift) % rows, (left + x + shift) % columns) for y, x in offsets]
            for (y, x), place in zip(offsets, places, strict=True):
                scores = torch.stack([(q[place] * k[other]).sum(-1) * (d / 8) ** -0.5 for other in places])
                distances = [(y - b + window - 1) * (2 * window - 1) + x - a + window - 1 for b, a in offsets]
                weights = (scores + attn.relative_position_bias_table[distances]).softmax(dim=0)  # [w·w, heads]
                mixed = torch.stack([v[other] for other in places])
                out[place] = (weights[..., None] * mixed).sum(0).flatten()
    return attn.proj(out)


@pytest.mark.parametrize(("stage", "shift"), [(0, 0), (1, 2), (2, 0)])
def test_swin_attends_inside_windows_shifted_in_odd_stages(stage: int, shift: int) -> None:
    torch.manual_seed(0)
    block = build_small("swin", hid_s=2, hid_t=8).hid.enc[stage].block.double()
    for parameter in block.attn.parameters():
        nn.init.normal_(parameter)
    plane = torch.rand(1, 8, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = attend_window_by_window(block.attn, plane[0], 4, shift)
        torch.testing.assert_close(block.attend(plane)[0], expected)


def test_uniformer_attends_where_the_width_stays() -> None:
    kinds = [type(stage.block).__name__ for stage in build_small("uniformer").hid.enc]
    assert kinds == ["LocalBlock", "GlobalBlock", "LocalBlock"]  # widths 16 → 32 → 32 → 16
    kinds = [type(stage.block).__name__ for stage in build_small("uniformer", hid_t=16).hid.enc]
    assert kinds == ["LocalBlock", "GlobalBlock", "GlobalBlock"]


def test_poolformer_leaves_out_what_is_outside() -> None:
    plane = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])[None, None]
    mixed = from_neighbours(plane)
    # Corner: the mean of 0, 1, 3, 4 is 2. Centre: the mean of all is the centre's own 4. Edge (0, 1): of 0..5, 2.5 - 1.
    assert mixed[0, 0, 0].tolist() == [2.0, 1.5, 1.0]
    assert mixed[0, 0, 1, 1] == 0


def test_channel_norm_is_over_channels_at_each_place() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 6, 3, 4)
    normed = ChannelNorm(6, eps=1e-6)(x)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(normed, expected)


def pass_on(conv: nn.Conv2d, factor: float = 1.0) -> None:
    """Make a convolution multiply each channel by a factor."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is a bias
    middle = conv.kernel_size[0] // 2
    with torch.no_grad():
        for channel in range(conv.out_channels):
            conv.weight[channel, channel % conv.weight.shape[1], middle, middle] = factor


def test_gsta_gates_one_half_of_the_context_with_the_other() -> None:
    context = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    assert GSTAGate(1).gate(torch.tensor(7.0), context).item() == 1.0  # 2·σ(0)


def test_van_weighs_the_features_with_their_context() -> None:
    context, u = torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1), 5.0)
    assert VANGate(2).gate(u, context).flatten().tolist() == [15.0, 15.0]


def test_hornet_gates_its_own_result_with_ever_wider_gates() -> None:
    gated = RecursiveGatedConv(8)
    nn.init.zeros_(gated.proj_in.weight)
    nn.init.constant_(gated.proj_in.bias, 2.0)
    pass_on(gated.dwconv, 1.5)
    pass_on(gated.proj_out)
    for widen in gated.pws:
        nn.init.ones_(widen.weight)
        nn.init.zeros_(widen.bias)
    out = gated(torch.rand(1, 8, 3, 3))
    # Gates are 2·1.5 = 3; the one starting channel is 2, gated 6, gated again 18; sums of 2 and of 4 of them follow:
    # 2·18·3 = 108, 4·108·3 = 1296.
    assert out.unique().tolist() == [1296.0]


def test_moganet_has_three_reaches_one_after_the_other() -> None:
    conv = MultiOrderConv(16)
    for layer, factor in ((conv.DW_conv0, 2.0), (conv.DW_conv1, 3.0), (conv.DW_conv2, 5.0), (conv.PW_conv, 1.0)):
        pass_on(layer, factor)
    out = conv(torch.ones(1, 16, 20, 20))
    # d/8 see the first alone, 3d/8 the second after it, d/2 the third after it.
    assert out[0, :, 0, 0].tolist() == [2.0] * 2 + [6.0] * 6 + [10.0] * 8
    assert [(c.kernel_size[0] - 1) * c.dilation[0] for c in (conv.DW_conv0, conv.DW_conv1, conv.DW_conv2)] == [4, 8, 18]


def test_moganet_weighs_what_differs_from_the_mean_of_the_plane() -> None:
    torch.manual_seed(0)
    attn = GatedAggregation(8)
    nn.init.constant_(attn.sigma, -1.0)  # takes the difference away, so that the mean alone is left
    pass_on(attn.gate)
    pass_on(attn.proj_2)
    attn.value = nn.Identity()  # type: ignore[assignment]
    x = torch.rand(1, 8, 4, 4)
    mean = attn.proj_1(x).mean(dim=(2, 3), keepdim=True)
    silu = nn.functional.silu
    torch.testing.assert_close(attn(x) - x, silu(silu(mean)).square().expand_as(x))


def test_moganet_mlp_weighs_what_differs_from_the_decomposed_map() -> None:
    torch.manual_seed(0)
    mlp = ChannelAggregation(4, 8)
    nn.init.constant_(mlp.sigma, -1.0)  # leaves the map alone, in every hidden channel
    pass_on(mlp.dwconv)
    nn.init.ones_(mlp.fc2.weight)
    nn.init.zeros_(mlp.fc2.bias)
    x = torch.rand(1, 4, 3, 3)
    gelu = nn.functional.gelu
    decomposed = gelu(mlp.decompose(gelu(mlp.fc1(x))))
    torch.testing.assert_close(mlp(x), 8 * decomposed.expand(1, 4, 3, 3))
