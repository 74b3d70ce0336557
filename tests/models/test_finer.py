"""Forecasts between cells: what interpolation cannot know comes from the Gaussians, and at the cells nothing changes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pdr_cli.models.finer import BICUBIC, BILINEAR, Spots, detail, interpolated
from pdr_cli.models.gaussians.base import Gaussians

H, W, K = 9, 11, 15


def gaussians(seed: int = 0) -> Gaussians:
    """12 Gaussians a frame, some near the edges, in two frames of two channels."""
    rng = torch.Generator().manual_seed(seed)
    uniform = torch.rand(1, 2, 12, 6, generator=rng)
    amplitudes = torch.randn(1, 2, 12, 2, generator=rng)
    return Gaussians(2.2 * uniform[..., :2] - 1.1, 0.4 + uniform[..., 2:4], 3 * uniform[..., 4], amplitudes)


def adapter(normalize: str = "peak") -> SimpleNamespace:
    return SimpleNamespace(normalize=normalize, kernel_size=K, backend="reference")


def at(rows, columns, crossed=True, circle=0) -> Spots:
    return Spots(*(torch.tensor(v, dtype=torch.float64) for v in (rows, columns)), crossed, circle)


def values(drawn: Gaussians, row: float, column: float) -> np.ndarray:
    """exp(-q/2) summed at one place, in float64: [2, C]. Positions from -1 to 1, scales in (K-1)/10 cells."""
    coords, scale, rotation, amplitudes = (part[0].double().numpy() for part in drawn)
    x = column - (coords[..., 0] + 1) * (W - 1) / 2
    y = row - (coords[..., 1] + 1) * (H - 1) / 2
    sigma = scale * (K - 1) / 10
    along = (np.cos(rotation) * x + np.sin(rotation) * y) / sigma[..., 0]
    across = (np.cos(rotation) * y - np.sin(rotation) * x) / sigma[..., 1]
    return np.einsum("tn,tnc->tc", np.exp(-(along**2 + across**2) / 2), amplitudes)


def test_between_cells_is_what_gaussians_have_beyond_the_mean_of_their_neighbours():
    """Half-way between two cells of a row the interpolation is the mean of both."""
    drawn = gaussians()
    found = detail(drawn, adapter(), (H, W), at([0.0, 2.0, 4.0, 6.0, 8.0], [0.5, 1.5, 2.5]))
    for r, row in enumerate((0, 2, 4, 6, 8)):
        for c, column in enumerate((0.5, 1.5, 2.5)):
            mean = (values(drawn, row, column - 0.5) + values(drawn, row, column + 0.5)) / 2
            assert found[0, :, :, r, c].numpy() == pytest.approx(values(drawn, row, column) - mean, abs=2e-5)
    assert found.abs().max() > 0.02


@pytest.mark.parametrize("normalize", ["peak", "density"])
def test_a_place_by_itself_has_the_value_that_it_has_in_a_grid(normalize):
    """Rows in the opposite order, as of an input with the south first."""
    rows, columns = np.linspace(H - 1, 0, 2 * H - 1), np.linspace(0, W - 1, 3 * W - 2)
    grid = detail(gaussians(), adapter(normalize), (H, W), at(rows, columns))
    chosen = [(3, 4), (16, 0), (7, 29)]
    alone = at([rows[i] for i, _ in chosen], [columns[j] for _, j in chosen], crossed=False)
    single = detail(gaussians(), adapter(normalize), (H, W), alone)
    assert single.shape == (1, 2, 2, 1, 3)
    for n, (i, j) in enumerate(chosen):
        assert torch.allclose(single[..., 0, n], grid[..., i, j], atol=2e-5)


def test_places_are_exact_in_a_network_of_8_bits():
    alone = at([2.3, 4.0], [3.5, 7.7], crossed=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = detail(gaussians(), adapter(), (H, W), alone)
    assert torch.equal(found, detail(gaussians(), adapter(), (H, W), alone))


@pytest.mark.parametrize("taps", [BILINEAR, BICUBIC])
def test_nothing_changes_at_the_cells(taps):
    frames = torch.randn(1, 2, 3, H, W)
    spots = at(np.arange(0, H - 0.5, 0.5), np.arange(0, W - 0.5, 0.5))
    assert torch.equal(interpolated(frames, spots, taps)[..., ::2, ::2], frames)
    assert detail(gaussians(), adapter(), (H, W), spots, taps)[..., ::2, ::2].abs().max() < 1e-5


@pytest.mark.parametrize(("taps", "degree"), [(BILINEAR, 1), (BICUBIC, 2)])
def test_polynomials_up_to_its_degree_come_back(taps, degree):
    """Away from the edges; Keys' kernel with a = -1/2 is exact for squares and not for cubes."""

    def surface(rows, columns, degree):
        return (0.5 * rows[:, None] ** degree - columns**degree + rows[:, None] * columns).double()

    spots = at([2.0, 2.25, 3.5, 5.9], [1.5, 4.75, 8.1])
    for power, same in ((degree, True), (degree + 1, False)):
        frames = surface(torch.arange(H), torch.arange(W), power)
        found = interpolated(frames, spots, taps)
        assert torch.allclose(found, surface(spots.rows, spots.columns, power), atol=1e-9) == same


def test_a_globe_closes_and_gaussians_do_not_reach_across_its_end():
    """Half-way between the last column and the first is their mean; a column at W is the first one again."""
    frames = torch.randn(1, 1, 1, H, W)
    spots = at([4.0, 4.0], [W - 0.5, float(W)], crossed=False, circle=W)
    mean = (frames[..., 4, -1] + frames[..., 4, 0]) / 2
    assert torch.allclose(interpolated(frames, spots)[0, 0, 0, 0], torch.stack([mean.squeeze(), frames[0, 0, 0, 4, 0]]))
    every = at(np.arange(H), np.arange(0, W, 0.5), circle=W)
    assert detail(gaussians(), adapter(), (H, W), every)[..., -1].abs().max() == 0
