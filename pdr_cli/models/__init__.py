"""Predictors, adapters, fusions and the network of all three. `from_openstl` reads OpenSTL's weights."""

from typing import TYPE_CHECKING, Any

from pdr_cli.families import imported

if TYPE_CHECKING:
    from pdr_cli.models.openstl import from_openstl
    from pdr_cli.runs.openstl import load_openstl

__all__ = ["from_openstl", "load_openstl"]

_PLACES = {"from_openstl": "pdr_cli.models.openstl", "load_openstl": "pdr_cli.runs.openstl"}


def __getattr__(name: str) -> Any:
    """Import torch only with the first use of a name."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return imported(f"{_PLACES[name]}:{name}")
