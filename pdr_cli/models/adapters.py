"""Adapters by name: the paper's, the local one, and a control for each."""

from __future__ import annotations

from typing import Literal

from pdr_cli.errors import ConfigError, did_you_mean
from pdr_cli.models.gaussians.base import Adapter, check_choice
from pdr_cli.models.gaussians.control import ConvControl, MLPControl, on_meta, parameters_of
from pdr_cli.models.gaussians.local import LocalGS
from pdr_cli.models.gaussians.predgs import PredGS

ADAPTERS = ("flatten", "local", "mlp", "conv")
INPUTS = ("auto", "coarse", "coarse+last")


def build_adapter(
    name: str,
    channels: int,
    size: tuple[int, int],
    *,
    adapter_input: str,
    gaussians: int,
    kernel_size: int | Literal["auto"],
    downsample: float | Literal["auto"],
    hidden: int,
    mlp_depth: int,
    init: str,
    coords: Literal["absolute", "offset"],
    cell_stride: int,
    per_cell: int,
    conv_width: int,
    conv_depth: int,
    sigma_min: float,
    normalize: Literal["peak", "density"],
    amplitude: Literal["auto", "tanh", "sigmoid", "linear"],
) -> Adapter:
    """ "flatten" (`PredGS`), "local" (`LocalGS`), or their controls "mlp" and "conv", built to their twin's size.

    Args:
        name: of the adapter.
        channels: C.
        size: (H, W).
        adapter_input: "coarse", "coarse+last" (the last observed frame too), or "auto": "coarse" for flatten and mlp,
            which the paper has it so, "coarse+last" for local and conv.

    The others are explained where they are used.

    Raises:
        ConfigError: an unknown name, or values from which nothing can be built.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"No adapter is called {name!r}.{did_you_mean(name, ADAPTERS)} Known: {', '.join(ADAPTERS)}.")
    check_choice("adapter_input", adapter_input, INPUTS)
    convolves = name in ("local", "conv")
    uses_last = adapter_input == "coarse+last" or (adapter_input == "auto" and convolves)

    def flatten() -> PredGS:
        return PredGS(
            channels,
            size,
            uses_last=uses_last,
            gaussians=gaussians,
            kernel_size=kernel_size,
            downsample=downsample,
            hidden=hidden,
            mlp_depth=mlp_depth,
            init=init,
            coords=coords,
            sigma_min=sigma_min,
            normalize=normalize,
            amplitude=amplitude,
        )

    def local() -> LocalGS:
        return LocalGS(
            channels,
            uses_last=uses_last,
            cell_stride=cell_stride,
            per_cell=per_cell,
            conv_width=conv_width,
            conv_depth=conv_depth,
            kernel_size=kernel_size,
            sigma_min=sigma_min,
            normalize=normalize,
            amplitude=amplitude,
        )

    if name == "flatten":
        return flatten()
    if name == "local":
        return local()
    (twin,) = on_meta(lambda: (local() if convolves else flatten(),))
    if name == "mlp":
        return MLPControl(
            channels,
            size,
            uses_last=uses_last,
            downsample=downsample,
            hidden=hidden,
            mlp_depth=mlp_depth,
            parameters=parameters_of(twin),
        )
    return ConvControl(
        channels,
        uses_last=uses_last,
        cell_stride=cell_stride,
        conv_depth=conv_depth,
        parameters=parameters_of(twin),
    )
