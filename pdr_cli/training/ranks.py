"""Training on several ranks: refused until gradients are averaged over them."""

from __future__ import annotations

from pdr_cli.errors import UsageError
from pdr_cli.system import processes


def refuse_several() -> None:
    """Refuse a start by torchrun with several ranks, each of which would train alone. Only the first rank logs it.

    Raises:
        UsageError: torchrun started more than one process.
    """
    if not processes.started_by_torchrun():
        return
    processes.quiet_all_but_first()
    raise UsageError("training on several ranks does not work yet", way_out="start `pdr train` without torchrun")
