"""The arithmetic of a training: `train.precision` auto is bf16 where the device computes in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.schema import Config
from pdr_cli.settings import AUTO
from pdr_cli.system import devices
from pdr_cli.system.logs import log
from pdr_cli.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch


def resolved(config: Config, device: torch.device, ranks: Ranks = ALONE) -> Config:
    """A configuration whose precision is fp32 or bf16; of several ranks, the first one decides for all.

    Raises:
        DeviceError: bf16 on a GPU that does not compute in it.
    """
    chosen = config.train.precision
    if chosen != AUTO:
        devices.check_precision(chosen, device)
        return config
    chosen = ranks.once(lambda: "bf16" if devices.computes_bf16(device) else "fp32")
    has = "has" if chosen == "bf16" else "has no"
    log.info("compute %s (train.precision auto: this device %s instructions for bf16)", chosen, has)
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": chosen})})
