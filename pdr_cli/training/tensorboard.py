"""A logger that writes the events of TensorBoard, `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pdr_cli.errors import UsageError
from pdr_cli.runs.folder import RunFolder

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    raise UsageError(
        "--logger tensorboard: the package tensorboard is not installed", way_out="pip install 'pdr-cli[tensorboard]'"
    ) from None

FOLDER = "tensorboard"  # within the run


class TensorBoard:
    """Scalars such as step/loss and validation/rmse, by step.

    Args:
        folder: of the run.
        step: that it continues from; later events of an earlier process are hidden.
    """

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._writer = SummaryWriter(str(folder.path / FOLDER), purge_step=step + 1)

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """See `loggers.Logger`; all but steps are written at once, so that a process that is killed leaves them."""
        for name, value in scalars(values):
            self._writer.add_scalar(f"{event}/{name}", value, step)
        if event != "step":
            self._writer.flush()

    def close(self) -> None:
        """See `loggers.Logger`."""
        self._writer.close()


def scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers by name; those of a list of several are numbered from 1."""
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        for number, one in enumerate(each, 1):
            yield name if len(each) == 1 else f"{name}/{number}", float(one)
