"""The memory that a training will need, from steps on a small grid and from sizes that the configuration fixes."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pdr_cli.data import statistics
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.layout import keeps_freed_memory
from pdr_cli.models.pdr import PDR
from pdr_cli.schema import Config
from pdr_cli.system import memory
from pdr_cli.training import lessons
from pdr_cli.training.batches import WeightedBatch
from pdr_cli.training.losses import LossOptions, build_loss
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.setup import has_parameters, set_up

if TYPE_CHECKING:
    from pdr_cli.training.run import Run

# Grids that stand for a larger one: the second is wide enough that borders hardly count in the difference of both.
CROPS = ((128, 128), (128, 256))
COPIES = 3  # of a batch while it is made: frames, where they are known, and network units
# Heap of a process over the tensors that live in it: freed memory stays (`memory.keep_freed_memory`) in pieces that the next
# tensor does not always fill. Measured 1.5 and 2.0, of a TAU and a U-Net; 1 where such memory is given back.
HEAP = 1.75
LATER = 60 * 10**6  # bytes of libraries that are loaded while a training runs: oneDNN's kernels, Matplotlib
TEMPORARIES = 8  # float32 copies of a block of frames while its statistics are added up


class Footprint(NamedTuple):
    """Bytes that a training needs.

    Args:
        program: of the process before training, without the weights.
        weights: of the network, and of their average if there is one.
        gradients: of the weights.
        optimizer: two moments of each weight.
        window: activations of a step and arrays of the batch, for each window.
        fixed: activations that do not depend on the number of windows.
        cache: decoded frames.
        climatology: coefficients.
        statistics: while scaling and climatology are measured, before the first step; gone afterwards.
        batch: windows of a step.
    """

    program: int
    weights: int
    gradients: int
    optimizer: int
    window: int
    fixed: int
    cache: int
    climatology: int
    statistics: int
    batch: int

    @property
    def before(self) -> int:
        """All that does not depend on the number of windows."""
        network = self.weights + self.gradients + self.optimizer
        return self.program + network + self.fixed + self.cache + self.climatology

    @property
    def total(self) -> int:
        """The peak of the process."""
        return max(self.before + self.batch * self.window, self.program + self.weights + self.statistics)

    def fitting(self, free: int) -> int:
        """Windows of a step that fit into `free` bytes."""
        return max(0, (free - self.before) // self.window)


def of(run: Run) -> Footprint:
    """The footprint of a run that is about to begin; builds and trains two small networks of its kind."""
    config, prepared = run.config, run.prepared
    weights, trained = (
        bytes_of(run.network.parameters()),
        bytes_of(p for p in run.network.parameters() if p.requires_grad),
    )
    program = memory.resident() - weights + LATER
    fixed, window = activations(run)
    averaged = trained if config.train.ema else 0
    coefficients, measuring = _statistics(run)
    if config.data.read_ahead:
        prepared.train.hold(2 * config.train.batch)
    return Footprint(
        program,
        weights + averaged,
        trained,
        2 * trained,
        window,
        fixed,
        prepared.train.cached_bytes(prepared.frames + sum(stop - start for _, start, stop in prepared.split.val)),
        coefficients,
        measuring,
        config.train.batch,
    )


def activations(run: Run) -> tuple[int, int]:
    """Bytes of a step beside weights, gradients and optimiser: those of any batch, and those of each window.

    They are counted in steps of small networks of the same kind, and grow in proportion to the cells of the batch.
    """
    whole, crop_sides, points = run.frames.size, run.config.train.crop, []
    size = (min(crop_sides[0], whole[0]), min(crop_sides[1], whole[1])) if crop_sides else whole
    large = math.prod(size) > math.prod(CROPS[-1])
    for number, crop in enumerate(CROPS if large else (size, size)):
        windows = 1 if large else 1 + number
        points.append((windows * math.prod(crop), step_bytes(run.config, run.frames._replace(size=crop), windows, run)))
    (few, low), (many, high) = points
    slope = (high - low) / (many - few)
    arrays = (
        COPIES * 4 * run.frames.channels * (run.frames.in_steps + run.config.data.out_steps * run.config.train.rollout)
    )
    heap = HEAP if keeps_freed_memory(whole, run.device) else 1
    return max(0, int(heap * (low - slope * few))), int(heap * slope * math.prod(size) + arrays * math.prod(whole))


def step_bytes(config: Config, frames: Frames, windows: int, run: Run) -> int:
    """The most bytes that two training steps on random frames hold at once, beside weights, gradients and optimiser."""
    network = registry.of(config, frames, run.trust)
    if run.network.frozen:
        network.freeze_predictor()
    device, train = torch.device("cpu"), config.train
    optimizer = set_up(network, train, run.frames.size, device) if has_parameters(network) else None
    options = LossOptions(train.l1_weight, torch.ones(frames.channels), frames.periodic)
    loss, batch = build_loss(train.loss, options, run.trust), _batch(config, frames, windows, network, run)
    randomness, autocast = (
        Randomness(network, device),
        torch.autocast("cpu", torch.bfloat16, enabled=train.precision == "bf16"),
    )
    network.train()
    with Live() as live:
        for _ in range(2):  # the second holds gradients and moments of the first
            with autocast:
                total = lessons.learn(network, loss, train, batch, len(batch.inputs.observed), randomness).total
            if optimizer is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
    return live.most - 3 * bytes_of(p for p in network.parameters() if p.requires_grad)


def _batch(config: Config, frames: Frames, windows: int, network: PDR, run: Run) -> WeightedBatch:
    """Random frames as a step has them."""
    steps = config.data.out_steps * config.train.rollout
    inputs = frames.blank(steps, windows)
    target = torch.rand(windows, steps, frames.channels, *frames.size)
    inputs = inputs._replace(observed=torch.rand_like(inputs.observed), target=target)
    if config.train.members > 1:
        seeds = torch.arange(config.train.members * windows)
        with torch.no_grad():
            inputs = network.members(inputs, config.train.members, seeds)
    weighs = config.train.latitude_weights or run.prepared.missing is not None
    return WeightedBatch(inputs, torch.ones_like(target) if weighs else None, torch.arange(windows).numpy())


class Live(TorchDispatchMode):
    """Adds up the bytes of tensors that are made in its context and still alive.

    Attributes:
        now: bytes alive.
        most: the largest `now` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _address(tensor) not in given | self._known:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._known.add(address)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def bytes_of(tensors: Any) -> int:
    """Their bytes."""
    return sum(t.nbytes for t in tensors)


def _statistics(run: Run) -> tuple[int, int]:
    """Bytes of the climatology's coefficients, and of all that their fit holds at once."""
    data, series = run.config.data, run.prepared.series
    parts = [(series[n], start, stop) for n, start, stop in run.prepared.split.train]
    blocks = statistics.blocks(parts, data.statistics_mb, run.config.train.seed)
    design = statistics.design_of(blocks)
    frame = run.frames.channels * math.prod(run.frames.size)
    sums = 8 * design.groups * design.terms * frame
    block = 4 * frame * max(stop - start for _, start, stop in blocks)
    return sums // 2, max(sums + TEMPORARIES * block, sums * 5 // 2) + 4 * statistics.SAMPLES * run.frames.channels


def line(found: Footprint, free: int) -> str:
    """A footprint in words, beside the memory that is free."""
    parts = {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimiser": found.optimizer,
        f"{found.batch} windows": found.fixed + found.batch * found.window,
        "frames": found.cache,
        "climatology": found.climatology,
        "program": found.program,
    }
    listed = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items())
    measuring = f"; {_megabytes(found.statistics)} while the data are measured"
    fit = f"{_megabytes(free)} free: {found.fitting(free)} windows of {_megabytes(found.window)} fit"
    return f"{_megabytes(found.total)} MB ({listed}{measuring}); {fit}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
