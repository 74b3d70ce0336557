from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pdr_cli.errors import CheckpointError
from pdr_cli.verification.networks import raft
from pdr_cli.verification.networks.raft import RAFT
from tests.drawing.scenes import cells, frame, inner_error, moved, texture


@pytest.fixture(scope="module")
def trained(shared: Path) -> RAFT:
    path = shared / "weights" / "raft_small.safetensors"
    if not path.is_file():
        pytest.skip(f"no RAFT weights: {path}")
    return RAFT.load(path)


def sideways(dx: float, dy: float) -> np.ndarray:
    return np.array([dx, dy])[:, None, None]


@pytest.mark.parametrize(("dx", "dy"), [(3.0, -2.0), (-6.5, 4.25), (12.0, 9.0)])
def test_a_shift_is_found(trained: RAFT, dx: float, dy: float) -> None:
    # A third of a cell is what this network, trained on larger motions of larger pictures, reaches.
    assert inner_error(trained.flow(*moved(128, 136, dx, dy)), sideways(dx, dy)) < 0.3


def test_a_rotation_is_found(trained: RAFT) -> None:
    x, y = cells(128, 128)
    x, y = x - 63.5, y - 63.5
    c, s = np.cos(0.06), np.sin(0.06)
    # What was at (x, y) has turned to (cx - sy, sx + cy): the second picture shows at (x, y) what was turned back.
    a, b = texture(x, y), texture(c * x + s * y, -s * x + c * y)
    expected = np.stack([c * x - s * y - x, s * x + c * y - y])
    assert inner_error(trained.flow(frame(a), frame(b)), expected) < 0.3


def test_a_zoom_is_found(trained: RAFT) -> None:
    x, y = cells(128, 128)
    x, y = x - 63.5, y - 63.5
    a, b = texture(x, y), texture(x / 1.05, y / 1.05)
    # The published network stretches its 16 features, 8 cells apart, over all 128 cells: (127 - 8 * 15) = 7 cells too
    # far at one side, where a flow that grows by 0.05 a cell is off by 0.35 in each direction; half of it on average.
    assert inner_error(trained.flow(frame(a), frame(b)), np.stack([0.05 * x, 0.05 * y])) < 0.3 + 0.35 / 2**0.5


@pytest.mark.parametrize(("H", "W"), [(64, 64), (60, 100), (150, 131)])
def test_other_sizes_are_enlarged_and_the_flow_scaled_back(trained: RAFT, H: int, W: int) -> None:
    assert inner_error(trained.flow(*moved(H, W, 2.0, -1.5)), sideways(2.0, -1.5), margin=12) < 0.3


def test_grey_is_three_equal_channels_and_pairs_do_not_mix(trained: RAFT) -> None:
    a, b = moved(128, 128, 3, 1)
    both = trained.flow(torch.cat([a, b]).expand(-1, 3, -1, -1), torch.cat([b, b]).expand(-1, 3, -1, -1))
    assert torch.allclose(both[:1], trained.flow(a, b), atol=1e-3)
    assert both[1].abs().mean() < 0.1  # equal frames: no motion


@pytest.mark.parametrize(
    ("size", "working"),
    [((128, 128), (128, 128)), ((32, 64), (128, 256)), ((120, 160), (128, 176)), ((129, 200), (136, 200))],
)
def test_working_size(size: tuple[int, int], working: tuple[int, int]) -> None:
    # (120, 160) is enlarged by 128 / 120 to (128, 170.7), then up to a multiple of 8.
    assert raft.working_size(*size) == working


def test_a_look_up_reads_the_correlation_where_the_flow_points() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 5, 16, 16, generator=generator).double()
    flow = torch.zeros(1, 2, 16, 16).double()
    flow[0, 0], flow[0, 1] = 2, -3
    found = raft.look_up(raft.correlations(first, second), flow)
    assert found.shape == (1, 4 * 49, 16, 16)
    # On the finest level, the value for the feature at (x, y) = (6, 9) and the offset (+1, -2) is its product with
    # the second frame's feature at (6 + 2 + 1, 9 - 3 - 2) = (9, 4), over √5. Offsets run through y fastest.
    channel = (1 + 3) * 7 + (-2 + 3)
    expected = (first[0, :, 9, 6] * second[0, :, 4, 9]).sum() / 5**0.5
    assert found[0, channel, 9, 6].item() == pytest.approx(expected.item())
    # On the next level, the feature at (6, 10) looks around (8, 7) / 2 = (4, 3.5): between rows 3 and 4 of means.
    halved = second.reshape(1, 5, 8, 2, 8, 2).mean(dim=(3, 5))[0]
    expected = (first[0, :, 10, 6] * (halved[:, 3, 4] + halved[:, 4, 4]) / 2).sum() / 5**0.5
    assert found[0, 49 + 3 * 7 + 3, 10, 6].item() == pytest.approx(expected.item())
    # Beyond the frame there is nothing: (15, 0) looks at (15 + 2 + 3, 0 - 3 - 3).
    assert found[0, 6 * 7 + 0, 0, 15] == 0


def test_the_network_sees_pixels_from_minus_one_to_one() -> None:
    network, seen = RAFT(), []
    network.cnet.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    rgb = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(1, 3, 64, 80)
    network.flow(rgb, rgb)
    assert seen[0].shape == (1, 3, 128, 160)
    assert seen[0].amin(dim=(0, 2, 3)).tolist() == seen[0].amax(dim=(0, 2, 3)).tolist() == [-1, 0, 1]


def test_the_flow_of_features_is_stretched_over_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    network = RAFT()
    column = torch.arange(16.0).expand(1, 2, 16, 16)
    twelfth = lambda hidden, context, correlation, flow: (hidden, column / 12)  # noqa: E731
    monkeypatch.setattr(network.update_block, "forward", twelfth)
    found = network.flow(torch.rand(1, 1, 128, 128), torch.rand(1, 1, 128, 128))
    # After 12 updates feature i has a flow of i features = 8 i cells; columns 0 to 127 read features 0 to 15.
    expected = 8 * torch.arange(128.0) * 15 / 127
    assert torch.allclose(found, expected.expand(1, 2, 128, 128), atol=1e-3)


def test_the_file_must_be_this_network(tmp_path: Path) -> None:
    path = tmp_path / "raft.safetensors"
    good = {k: v.contiguous() for k, v in RAFT().state_dict().items()}
    # 990,162 weights are what the paper's 1.0 M for RAFT-small stand for.
    assert sum(v.numel() for v in good.values()) == 990_162
    save_file(good, path)
    flow = RAFT.load(path).flow(torch.rand(2, 1, 128, 144), torch.rand(2, 1, 128, 144))
    assert flow.shape == (2, 2, 128, 144)
    assert flow.isfinite().all()
    save_file({f"module.{k}": v for k, v in good.items()}, path)
    with pytest.raises(
        CheckpointError, match=r"lacks fnet\.conv1\.weight; it has module\..*; expected the weights of RAFT-small"
    ):
        RAFT.load(path)
