"""What several commands do with their input arguments."""

from __future__ import annotations

from collections.abc import Sequence

from pdr_cli.errors import UsageError


def renames(arguments: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """{channel of the model: name in the input} from `NAME=INPUTNAME`, or from `INPUTNAME` if there is one channel.

    Raises:
        UsageError: a channel that the model does not have.
    """
    chosen = {}
    for argument in arguments:
        name, separator, source = argument.partition("=")
        if not separator:
            name, source = (channels[0], argument) if len(channels) == 1 else (argument, argument)
        if name not in channels:
            raise UsageError(f"--var {argument}: the model has no variable {name!r}; it has {', '.join(channels)}")
        chosen[name] = source
    return chosen
