"""Pictures with texture and a known motion."""

import numpy as np
import torch
from torch import Tensor

# Waves of 10 to 40 cells in many directions: smooth enough to be read between cells, busy enough to be followed.
WAVES = 40


def texture(x: np.ndarray, y: np.ndarray, seed: int = 0) -> np.ndarray:
    """A smooth random picture in [0, 1], defined everywhere, at columns x and rows y."""
    rng = np.random.default_rng(seed)
    length, angle = rng.uniform(10, 40, WAVES), rng.uniform(0, 2 * np.pi, WAVES)
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    kx, ky = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)
    # The sum has a deviation of √(40 / 2) ≈ 4.5; four of them reach from 0 to 1.
    waves = sum(np.sin(a * x + b * y + p) for a, b, p in zip(kx, ky, phase, strict=True))
    return np.clip(0.5 + waves / (8 * np.sqrt(WAVES / 2)), 0, 1)


def cells(H: int, W: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, [H, W] each."""
    y, x = np.mgrid[0:H, 0:W].astype(float)
    return x, y


def moved(H: int, W: int, dx: float, dy: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A picture and itself moved dx to the right and dy down: [1, 1, H, W] each. The flow between them is (dx, dy)."""
    x, y = cells(H, W)
    return frame(texture(x, y, seed)), frame(texture(x - dx, y - dy, seed))


def frame(values: np.ndarray) -> Tensor:
    """[H, W] → [1, 1, H, W] float32."""
    return torch.from_numpy(values.astype(np.float32))[None, None]


def inner_error(flow: Tensor, expected: np.ndarray, margin: int = 16) -> float:
    """Mean distance in cells of a flow [1, 2, H, W] from the expected one [2, H, W] or [2, 1, 1], off the borders."""
    gap = flow[0].double().numpy() - expected
    return float(np.hypot(*gap)[margin:-margin, margin:-margin].mean())


def uniform(u: float, v: float, H: int, W: int) -> Tensor:
    """The same motion everywhere: [1, 2, H, W]."""
    return torch.tensor([u, v], dtype=torch.float64)[None, :, None, None].expand(1, 2, H, W)
