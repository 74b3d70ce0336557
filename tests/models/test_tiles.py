"""Forecasts made tile by tile, beside those of the whole grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models import registry, tiles
from pdr_cli.models.interfaces import Batch, Forecast, Frames
from pdr_cli.models.pdr import PDR
from pdr_cli.models.tiles import Tiles
from tests.models.builders import options

TILE: dict[str, Any] = {"tile": [32, 48], "tile_overlap": 16}
NETWORK: dict[str, Any] = {
    "backbone": "convnext", "hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2, "adapter": "local", "cell_stride": 2, "noise": 0,
}  # fmt: skip


def network(frames: Frames, **changes: Any) -> PDR:
    torch.manual_seed(0)
    return registry.build(options(**NETWORK | TILE | changes), frames).eval()


def smooth(*shape: int) -> Tensor:
    """Waves of some cells, which go round."""
    H, W = shape[-2:]
    y, x = torch.arange(H)[:, None] / H, torch.arange(W) / W
    count = torch.Size(shape[:-2]).numel()
    waves = [torch.sin(2 * torch.pi * (n * x + n)) * torch.cos(3 * n * y) for n in range(1, 1 + count)]
    return torch.stack(waves).view(shape)


class Blur(nn.Module):
    """A mean of 5 x 5 cells that knows no frame: zeros beyond borders, or round in longitude."""

    def __init__(self, periodic: bool) -> None:
        super().__init__()
        self.mode = "circular" if periodic else "constant"

    def forward(self, batch: Batch) -> Forecast:
        x = batch.observed.flatten(0, 1)
        wide = nn.functional.pad(nn.functional.pad(x, (2, 2, 0, 0), mode=self.mode), (0, 0, 2, 2))
        made = nn.functional.avg_pool2d(wide, 5, 1).view_as(batch.observed)
        return Forecast(made, made * 2, None, {})


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("size", [(90, 128), (97, 144), (20, 144), (64, 30)])
def test_a_network_that_looks_no_further_than_the_overlap_forecasts_the_same(
    periodic: bool, size: tuple[int, int]
) -> None:
    batch, blur = Batch(torch.rand(2, 3, 2, *size), 3), Blur(periodic)
    made, whole = Tiles((32, 48), 8, periodic).forecast(batch, blur), blur(batch)
    # Weighted means of equal numbers: equal to rounding.
    assert torch.allclose(made.fused, whole.fused, atol=1e-6)
    assert torch.allclose(made.coarse, whole.coarse, atol=1e-6)
    assert made.layer is None


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("overlap", [0, 4, 16])
def test_the_weights_of_tiles_sum_to_one(around: bool, overlap: int) -> None:
    total = torch.zeros(192)
    for span in Tiles((48, 48), overlap, around).spans(192, 48, around):
        total[span.places] += span.weight
    assert torch.allclose(total, torch.ones(192))


def test_seams_do_not_show() -> None:
    """Norms over a tile differ from those over the frame, and tiles are blended: no edge stands out of the field."""
    frames = Frames(2, 2, (96, 192), True)
    made, batch = network(frames), frames.blank()._replace(observed=smooth(1, 2, 2, 96, 192))
    seams = torch.tensor([46, 94, 142])

    def edges(tiles: Tiles | None) -> Tensor:
        """How much more a forecast bends where tiles of 48 columns meet than some cells beside."""
        made.tiles = tiles
        with torch.no_grad():
            bends = made(batch).fused[0, 0, 0].diff(n=2, dim=-1).abs().mean(dim=0)
        return bends[seams].mean() - (bends[seams - 6].mean() + bends[seams + 6].mean()) / 2

    blended, butted = edges(made.tiles), edges(Tiles((32, 48), 0, True))
    made.tiles = None
    error = made(batch).fused.std()  # of a forecast of the mean
    assert blended < 0.01 * error < butted


def test_training_sees_the_whole_grid() -> None:
    frames = Frames(2, 2, (64, 96))
    made, sizes = network(frames).train(), []
    made.predictor.register_forward_hook(lambda _, given, __: sizes.append(tuple(given[0].shape[-2:])))
    batch = frames.blank()
    made(batch._replace(target=torch.zeros(1, 2, 2, 64, 96)), "train")
    made.eval()(batch)
    assert (sizes[0], set(sizes[1:])) == ((64, 96), {(64, 64)})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"backbone": "unet"}, "a map of numbers for each cell"),
        ({"backbone": "vit"}, "attends to the whole frame"),
        ({"backbone": "convlstm"}, "not known to be convolutional"),
        ({"adapter": "flatten"}, "belong to the whole frame"),
        ({"anchor": "ridge"}, "numbers belong to cells"),
        ({"inputs": "anomalies"}, "spread belongs"),
        ({"tile": [33, 48]}, "multiples of 2"),
        ({"n_s": 4, "tile_overlap": 6}, "multiples of 4"),
    ],
)
def test_networks_that_are_tied_to_the_grid_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        network(Frames(2, 2, (64, 96)), **changes)


def test_a_crop_is_the_same_part_of_everything() -> None:
    x = torch.arange(20.0 * 30).view(1, 1, 1, 20, 30)
    batch = Batch(x, 1, target=x + 1, normal=x.expand(1, 2, 1, 20, 30), seeds=torch.zeros(1))
    torch.manual_seed(0)
    rows, columns = tiles.random_places(20, 8, 4, around=False), tiles.random_places(30, 16, 4, around=True)
    part = tiles.cut(batch, rows, columns)
    assert part.observed.shape == (1, 1, 1, 8, 16)
    assert part.target is not None
    assert part.normal is not None
    assert torch.equal(part.target, part.observed + 1)
    assert torch.equal(part.normal[:, :1], part.observed)
    assert part.observed[0, 0, 0, 0, 0] == rows[0] * 30 + columns[0]
    starts = {int(tiles.random_places(30, 16, 4, around=True)[0]) for _ in range(200)}
    assert starts == {0, 4, 8, 12, 16, 20, 24, 28}
    assert {int(tiles.random_places(20, 8, 4, around=False)[0]) for _ in range(200)} == {0, 4, 8, 12}
