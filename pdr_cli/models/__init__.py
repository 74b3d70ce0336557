"""Predictors, the PredGS adapter, and what joins them. OpenSTL's weights are read by `from_openstl`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdr_cli.models.openstl import from_openstl, load_openstl

__all__ = ["from_openstl", "load_openstl"]


def __getattr__(name: str) -> Any:
    """Import torch only when one of these is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pdr_cli.models import openstl

    return getattr(openstl, name)
