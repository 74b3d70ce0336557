"""Which backend renders: the one that was requested, or the fastest that is available on this machine."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

from pdr_cli.splat import derivatives, native
from pdr_cli.splat.native import ENVIRONMENT

log = logging.getLogger("pdr.splat")

BACKENDS = ("auto", "reference", "cpu", "cuda")


class RendererUnavailable(RuntimeError):  # noqa: N818 - the name states the condition
    """A backend was requested by name and cannot run here."""


def select(backend: str, device: str) -> tuple[str, str]:
    """The name of the backend to use on a type of device, and the reason."""
    by_environment = backend == "auto"
    if by_environment:
        backend = os.environ.get(ENVIRONMENT) or "auto"
    if backend == "auto":
        if device not in ("cpu", "cuda"):
            return "reference", f"no compiled renderer for {device}"
        reason = native.unavailable(device)
        if not reason:
            return device, "compiled for this machine"
        _warn_once(device, reason)
        return "reference", f"compiled {device} renderer unavailable: {reason}"
    request = f"{ENVIRONMENT}={backend}" if by_environment else f"backend={backend!r}"
    if backend not in BACKENDS:
        raise ValueError(f"{request} is not a renderer; expected one of {', '.join(BACKENDS)}")
    if backend == "reference":
        return "reference", f"requested by {request}"
    if backend != device:
        raise RendererUnavailable(f"{request}, but the Gaussians are on {device}; move them, or use 'auto'")
    if reason := native.unavailable(backend):
        raise RendererUnavailable(f"{request}, but {reason}; backend='reference' or 'auto' works everywhere")
    return backend, f"requested by {request}"


# As torch.compiler.assume_constant_result does, without its import of the compiler, half of a forecast's start-up time.
select._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _warn_once(device: str, reason: str) -> None:
    log.warning("compiled %s renderer unavailable, using plain torch: %s", device, reason)


def unsupported(single: bool, *inputs: Tensor) -> str:
    """Why no compiled renderer can render these tensors here, or an empty string. single: all are float32."""
    if not single and any(x.dtype == torch.float64 for x in inputs):
        return "renders in float32 only"
    compiling = torch.compiler.is_dynamo_compiling()
    # Under torch.compile, torch 2.11 returns True for is_exporting().
    if not compiling and torch.compiler.is_exporting():
        return "cannot be exported"
    return derivatives.unsupported(compiling)


def reference_instead(backend: str, reason: str) -> str:
    """The reference, for what only it supports."""
    if backend != "auto":
        raise RendererUnavailable(f"backend={backend!r} {reason}; use backend='reference' or 'auto'")
    return "reference"
