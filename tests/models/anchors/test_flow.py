import numpy as np
import torch

from pdr_cli.models.anchors.flow import FlowAnchor
from pdr_cli.models.interfaces import Context, Frames
from tests.drawing.scenes import cells, texture


def sliding(steps: int, speed: float) -> torch.Tensor:
    """A texture that moves `speed` cells to the right in each frame: [1, steps, 1, 48, 56]."""
    x, y = cells(48, 56)
    return torch.from_numpy(np.stack([texture(x - speed * t, y) for t in range(steps)]).astype(np.float32))[
        None, :, None
    ]


def test_the_anchor_moves_what_moved() -> None:
    frames = sliding(6, 1.5)
    anchor = FlowAnchor(Frames(3, 1, (48, 56)))
    anchor.damping.zero_()
    made = anchor(frames[:, :3], 3, Context())
    inner = (..., slice(10, -10), slice(12, -12))
    error = (made - frames[:, 3:])[inner].abs().mean()
    assert error < 0.1 * (frames[:, 2:3] - frames[:, 3:])[inner].abs().mean()


def test_without_a_second_frame_or_texture_the_anchor_is_persistence() -> None:
    anchor = FlowAnchor(Frames(1, 2, (9, 11)))
    single = torch.rand(2, 1, 2, 9, 11)
    assert torch.equal(anchor(single, 3, Context()), single.expand(-1, 3, -1, -1, -1))
    constant = torch.full((2, 4, 2, 9, 11), 0.3)
    assert torch.equal(anchor(constant, 5, Context()), constant[:, :1].expand(-1, 5, -1, -1, -1))
