"""Every failure that a user can cause, with its exit code and stable name."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from typing import Self


class PdrError(Exception):
    """A failure that the user can mend. `code` is the exit code, `name` is stable and greppable.

    `str()` joins the three parts to one line: "FOUND; expected EXPECTED; WAY OUT", with a capital letter
    where a question such as "Did you mean 'x'?" comes before; without one, the full stop that it would follow is left out.
    Code reads the parts, never the line.

    Args:
        found: what is wrong, with the file, option or value that is.
        expected: a noun phrase for what would be right; "" where `found` implies it.
        way_out: what the user can do, such as an option or a command; "" where there is nothing to do.
    """

    code = 1
    name = "E_BUG"
    told = False  # True once all processes of a command know of it

    def __init__(self, found: str, expected: str = "", way_out: str = "") -> None:
        super().__init__(found, expected, way_out)
        self.found, self.expected, self.way_out = found, expected, way_out

    def __str__(self) -> str:
        expected = f"expected {self.expected}" if self.expected else ""
        line = self.found if self.found.endswith("..") else self.found.removesuffix(".")
        for part in filter(None, (expected, self.way_out)):
            line += f" {part[0].upper()}{part[1:]}" if line.endswith("?") else f"; {part}"
        return line

    def at(self, where: object) -> Self:
        """The same failure, with the file, channel or step `where` it was met put before what was found."""
        return self.replace(found=f"{where}: {self.found}")

    def replace(self, *, found: str | None = None, way_out: str | None = None) -> Self:
        """The same failure with another `found` or `way_out`."""
        changed = copy.copy(self)
        changed.found = self.found if found is None else found
        changed.way_out = self.way_out if way_out is None else way_out
        changed.args = (changed.found, changed.expected, changed.way_out)
        return changed


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
    """An I/O error: a full disk while writing, or a URL that cannot be reached."""

    code, name = 74, "E_IO"


class LockedError(PdrError):
    """A file that another process is writing."""

    code, name = 75, "E_LOCKED"


class LostProcessError(PdrError):
    """A process that works with this one has ended, or does not answer; what was saved can be continued."""

    code, name = 75, "E_LOST_PROCESS"
    told = True  # nobody is left to tell


class ConfigError(PdrError):
    """A preset or option value that the schema does not accept."""

    code, name = 78, "E_CONFIG"


class UntrustedCodeError(PdrError):
    """A file that names code of others, which only the user may allow to run."""

    code, name = 78, "E_UNTRUSTED_CODE"


class InterruptedRun(PdrError):  # noqa: N818 - an interruption is not an error of the run
    """A signal stopped the run after its state was saved. `code` is 128 + the signal's number."""

    name = "E_INTERRUPTED"

    def __init__(self, found: str, signal_number: int, way_out: str = "") -> None:
        super().__init__(found, way_out=way_out)
        self.code = 128 + signal_number

    def __reduce__(self) -> tuple[type[Self], tuple[str, int, str]]:
        return type(self), (self.found, self.code - 128, self.way_out)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " did you mean 'a' or 'b'?" with the names nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
