import numpy as np
import torch

from pdr_cli.training.batches import Flows
from pdr_cli.training.kept import Kept


def test_each_window_is_computed_once_as_far_as_memory_allows() -> None:
    made: list[int] = []
    kept = Kept(limit_mb=0.0002)  # type: ignore[arg-type]  # two windows of 25 numbers

    def windows(*which: int) -> torch.Tensor:
        def make(row: int) -> torch.Tensor:
            made.append(which[row])
            return torch.full((25,), float(which[row]))

        return kept.of(np.array(which), make)

    assert windows(3, 5, 4)[:, 0].tolist() == [3, 5, 4]
    assert windows(4, 5, 3, 6)[:, 0].tolist() == [4, 5, 3, 6]
    assert made == [3, 5, 4, 4, 6], "3 and 5 are kept"


def test_flows_are_those_of_the_windows() -> None:
    frames = torch.rand(3, 2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    flows = Flows()
    first = flows.of(frames, np.array([7, 8, 9]))
    # Kept flows do not look at the frames again.
    assert torch.equal(flows.of(torch.zeros_like(frames), np.array([9, 7, 8])), first[[2, 0, 1]])
