"""Every failure a user can cause, with its exit code and stable name.

The message says what was found, what was expected and the way out; it is one line and never a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PdrError(Exception):
    """A failure that the user can mend. `code` is the exit code, `name` is stable and greppable."""

    code = 1
    name = "E_BUG"


class UsageError(PdrError):
    """Options that contradict each other."""

    code, name = 2, "E_USAGE"


class DataError(PdrError):
    """Input data or a checkpoint that cannot be used as it is."""

    code, name = 65, "E_DATA"


class CheckpointError(DataError):
    """A model file that is truncated, altered, foreign or too new."""

    name = "E_CHECKPOINT"


class GridError(DataError):
    """Data on another grid than the model's."""

    name = "E_GRID_MISMATCH"


class VariableError(DataError):
    """A variable that the data does not have, or one among several that must be named."""

    name = "E_VARIABLE"


class TimeError(DataError):
    """A time axis that is too short, irregular, or has gaps where a window is needed."""

    name = "E_TIME"


class MissingValuesError(DataError):
    """NaN or fill values inside a window that is to be forecast."""

    name = "E_MISSING_VALUES"


class InputNotFoundError(PdrError):
    """A file, folder or model that is not there."""

    code, name = 66, "E_NOT_FOUND"


class DeviceError(PdrError):
    """A device that was asked for and is not there."""

    code, name = 69, "E_DEVICE"


class MemoryShortageError(DeviceError):
    """A batch, halved, that still does not fit into memory. As with a device that is not there, another must be taken
    or less be asked of it (EX_UNAVAILABLE of sysexits.h); no file is at fault.
    """

    name = "E_MEMORY"


class OutputError(PdrError):
    """An output that cannot be created: no folder, no permission, a directory in its place."""

    code, name = 73, "E_OUTPUT"


class StorageError(PdrError):
    """An I/O error or a full disk while writing."""

    code, name = 74, "E_IO"


class LockedError(PdrError):
    """A file that another process is writing."""

    code, name = 75, "E_LOCKED"


class ConfigError(PdrError):
    """A preset or option value that the schema does not accept."""

    code, name = 78, "E_CONFIG"


class InterruptedRun(PdrError):  # noqa: N818 - an interruption is not an error of the run
    """A signal stopped the run after its state was saved. `code` is 128 + the signal's number."""

    name = "E_INTERRUPTED"

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.code = 128 + signal_number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " did you mean 'a' or 'b'?" with the names nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
