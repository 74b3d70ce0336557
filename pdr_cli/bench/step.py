"""How long a training step or a forecast takes on this machine, timed only after each variant is shown to compute the same."""

from __future__ import annotations

import math
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pdr_cli.bench.agreement import Outcome, compare, passes
from pdr_cli.bench.machine import at_least, describe, synchronize
from pdr_cli.bench.step_setting import ALONE, COMPILED, Options, Setting, find_variants, refuse_others
from pdr_cli.choices import LOSSES
from pdr_cli.data import kinds
from pdr_cli.errors import PdrError, UsageError
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Forecast
from pdr_cli.models.layers import NormedSiLU
from pdr_cli.models.layout import lay_out
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import inputs
from pdr_cli.system.logs import log
from pdr_cli.system.memory import keep_freed_memory
from pdr_cli.training.losses import LossOptions, build_loss
from pdr_cli.training.setup import has_parameters, parameter_groups, set_up

REFERENCE = "plain+predgs"
WARM_UP = 2  # steps until allocations and the optimiser's moments are there
PARTS = ("predictor", "adapter", "loss", "backward", "optimizer")


class Taken(NamedTuple):
    """Seconds of a step: by part, and of the processor on all threads, which other programs change less."""

    parts: dict[str, float]
    cpu: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions in full float32 on GPUs, for comparisons: TF32, torch's default there, keeps three digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Step:
    """A training step of one variant, on a network of its own that starts from the same weights as the others'."""

    def __init__(self, variant: str, setting: Setting) -> None:
        self.setting = setting
        train = setting.config.train
        x, self.y = setting.windows()
        self.batch = setting.frames.blank(self.y.shape[1], len(x), setting.device)._replace(observed=x)
        torch.manual_seed(train.seed)
        self.network = build(variant, setting).to(setting.device).train()
        self.autocast = torch.autocast(setting.device.type, torch.bfloat16, enabled=in_bf16(variant, setting))
        if variant.startswith("pdr"):
            self.optimizer = set_up(self.network, train, setting.size, setting.device)
        else:
            if variant == "plain+malloc":
                keep_freed_memory()
            groups = parameter_groups(self.network, train.weight_decay)
            self.optimizer = torch.optim.AdamW(groups, lr=train.lr)
        span = torch.ones(setting.channels, device=setting.device)
        self.loss = build_loss(train.loss, LossOptions(train.l1_weight, span), setting.trust)
        self.clock = Clock(setting.device)
        if variant == COMPILED:  # where a hook would divide the graph: the predictor's time counts as the adapter's
            self.forward = torch.compile(self.network)
        else:
            self.forward = self.network
            self.network.predictor.register_forward_hook(lambda *_: self.clock.note("predictor"))

    def __call__(self) -> Taken:
        """Take a step."""
        cpu = time.process_time()
        self.clock = Clock(self.setting.device)
        with self.autocast:
            out = self.forward(self.batch)
            self.clock.note("adapter")
            total = self.total(out)
            self.clock.note("loss")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.clock.note("backward")
        self.optimizer.step()
        self.clock.note("optimizer")
        return Taken(self.clock.parts, time.process_time() - cpu)

    def total(self, out: Forecast) -> Tensor:
        """The loss that the step minimises."""
        total = self.loss(out.fused, self.y)[0]
        if weight := self.setting.config.train.coarse_weight:
            total = total + weight * self.loss(out.coarse, self.y)[0]
        return total

    def outcome(self) -> Outcome:
        """The first step's results; stochastic depth is drawn alike for every variant.

        A predictor alone is trained with another loss, so only its forecast can be compared.
        """
        torch.manual_seed(0)
        with self.autocast, without_tf32():
            out = self.forward(self.batch)
            total = self.total(out)
        if self.network.adapter is None:
            return Outcome(out.coarse.detach(), None, {})
        self.optimizer.zero_grad(set_to_none=True)
        with without_tf32():
            total.backward()
        gradients = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(out.coarse.detach().float(), out.fused.detach().float(), gradients)


class Pass:
    """A forecast of one variant, as `Step`: the forward pass without gradients, on the same weights and frames."""

    def __init__(self, variant: str, setting: Setting) -> None:
        self.device, (x, y) = setting.device, setting.windows()
        self.batch = setting.frames.blank(y.shape[1], len(x), self.device)._replace(observed=x)
        self.rounded = in_bf16(variant, setting)
        torch.manual_seed(setting.config.train.seed)
        self.network = build(variant, setting).to(self.device).eval()
        torch.manual_seed(0)
        for weights in (p.data for p in self.network.predictor.parameters() if not p.any()):
            weights.normal_(std=0.02)  # a last layer of zeros would hide what differs before it
        if variant.startswith("pdr"):
            lay_out(self.network, setting.size, self.device)  # as `inference.model.load` does
        self.forward = torch.compile(self.network) if variant == COMPILED else self.network
        if variant.startswith("pdr") or variant == "plain+malloc":
            keep_freed_memory()

    def __call__(self) -> Taken:
        """Make a forecast."""
        cpu, clock = time.process_time(), Clock(self.device)
        self.forecast()
        clock.note("predictor")
        return Taken(clock.parts, time.process_time() - cpu)

    def forecast(self) -> Forecast:
        """The forecast of the network."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.rounded):
            found: Forecast = self.forward(self.batch)
        return found

    def outcome(self) -> Outcome:
        """Both forecasts, and no gradients."""
        with without_tf32():
            out = self.forecast()
        return Outcome(out.coarse.float(), None if self.network.adapter is None else out.fused.float(), {})


END_SECONDS = 10  # for a process whose pipe is closed to end


class Worker:
    """A `Step` in a process of its own, because the allocator settings of training hold for a whole process.

    Args:
        threads: of torch in that process.
    """

    def __init__(self, variant: str, setting: Setting, threads: int) -> None:
        # A forked process may not use the threads that torch has started.
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, variant, setting, threads), daemon=True)
        self.process.start()
        there.close()  # so that a process that dies ends what waits for it

    def outcome(self) -> Outcome:
        """See `Step.outcome`."""
        coarse, fused, gradients = self.ask("outcome")
        found = {name: torch.from_numpy(gradient) for name, gradient in gradients.items()}
        return Outcome(torch.from_numpy(coarse), None if fused is None else torch.from_numpy(fused), found)

    def __call__(self) -> Taken:
        """See `Step.__call__`."""
        return self.ask("step")

    def ask(self, request: str) -> Any:
        """The answer to a request.

        Raises:
            PdrError: the process has ended; an error of its own is on stderr.
        """
        try:
            self.pipe.send(request)
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> PdrError:
        self.process.join(END_SECONDS)
        code = self.process.exitcode
        if code is None:
            return PdrError("the benchmark's process has closed its connection and goes on")
        if code < 0:
            way_out = "check that there is enough memory" if code == -signal.SIGKILL else ""
            return PdrError(f"the benchmark's process was ended by {signal.Signals(-code).name}", way_out=way_out)
        return PdrError("the benchmark's process has ended by its error above")

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, variant: str, setting: Setting, threads: int) -> None:
    """Answer a `Worker` until it closes its end."""
    torch.set_num_threads(threads)
    step = Pass(variant, setting) if setting.forward else Step(variant, setting)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(step() if request == "step" else as_arrays(step.outcome()))


def as_arrays(outcome: Outcome) -> tuple[Any, ...]:
    """For another process: a tensor would be sent as shared memory, which may be short."""
    fused = None if outcome.fused is None else outcome.fused.numpy(force=True)
    gradients = {name: gradient.numpy(force=True) for name, gradient in outcome.gradients.items()}
    return outcome.coarse.numpy(force=True), fused, gradients


@dataclass
class Clock:
    """Seconds of each part since the one before it was over; a part that comes again adds up."""

    device: torch.device
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        synchronize(self.device)
        self.last = time.perf_counter()

    def note(self, part: str) -> None:
        """`part` is over."""
        synchronize(self.device)
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


def run(options: Options) -> dict[str, Any]:
    """Check each variant against `plain+predgs` and time those that agree; returns the report."""
    at_least("repeats", options.repeats, 2)  # fewer have no spread
    at_least("threads", 1 if options.threads is None else options.threads)
    variants = find_variants(options.variants)
    setting = options.setting()
    refuse_others(setting)
    registry.load(setting.config.model, setting.trust)  # refused here, and not in each process of a variant
    LOSSES.find(setting.config.train.loss, setting.trust)
    if not setting.forward:
        variants = trained(variants, setting, named=bool(options.variants))
    threads = options.threads or torch.get_num_threads()
    report = describe(setting.device) | {"threads": threads, "forward": options.forward}
    report["rows"] = measure(setting, variants, threads, options.repeats)
    return report


def trained(variants: list[str], setting: Setting, named: bool) -> list[str]:
    """The variants that have parameters to train.

    Raises:
        UsageError: the whole model has none, or a variant that was `named` has none.
    """
    if not has_parameters(build(REFERENCE, setting)):
        message = f"preset {setting.config.preset} trains no network: its forecast is the anchor's"
        raise UsageError(message, way_out="name a --backbone, or time forecasts with --forward")
    alone = [name for name in variants if name in ALONE]
    if not alone or has_parameters(build(alone[0], setting)):
        return variants
    if named:
        backbone = setting.config.model.backbone
        raise UsageError(
            f"--variants {alone[0]} is the predictor alone, and --backbone {backbone} has nothing to train"
        )
    return [name for name in variants if name not in alone]


def build(variant: str, setting: Setting) -> PDR:
    """The preset's network, or its predictor alone."""
    resolved = inputs.resolved(setting.config, kinds.KINDS.get(setting.config.data.kind, kinds.WEATHER))
    if variant in ALONE:
        resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"fusion": "none"})})
    network = registry.of(resolved, setting.frames, setting.trust)
    for module in network.modules():
        if isinstance(module, NormedSiLU):
            module.compiled = variant.startswith("pdr")
    return network


def measure(
    setting: Setting, variants: list[str], threads: int, repeats: int, start: Callable[..., Any] = Worker
) -> list[dict[str, Any]]:
    """One row per variant; `start` starts one."""
    workers = {name: start(name, setting, threads) for name in dict.fromkeys([REFERENCE, *variants])}
    try:
        log.debug("checking %s", ", ".join(variants))
        truth = workers[REFERENCE].outcome()
        errors = {name: compare(workers[name].outcome(), truth, in_bf16(name, setting)) for name in variants}
        sound = {name: workers[name] for name in variants if passes(*errors[name], in_bf16(name, setting))}
        log.debug("timing %s", ", ".join(sound))
        samples = interleave(sound, repeats)
    finally:
        for worker in workers.values():
            worker.close()
    return [
        {
            **describe_setting(setting),
            "variant": name,
            "ok": name in sound,
            # JSON has no infinity.
            "max_rel_err": errors[name][0] if math.isfinite(errors[name][0]) else None,
            "max_rel_err_gradients": errors[name][1] if math.isfinite(errors[name][1]) else None,
            **statistics_of(samples, name),
        }
        for name in variants
    ]


def in_bf16(variant: str, setting: Setting) -> bool:
    """True for the variants that run under autocast: those of pdr, where they or, for steps, the preset say so."""
    trained = not setting.forward and setting.config.train.precision == "bf16"
    return variant == "pdr+bf16" or (variant == "pdr" and trained)


def interleave(steps: dict[str, Callable[[], Taken]], repeats: int) -> dict[str, list[Taken]]:
    """Times of the steps; the variants take turns, so that other load on the machine affects all of them alike."""
    for _ in range(WARM_UP):
        for step in steps.values():
            step()
    samples: dict[str, list[Taken]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            samples[name].append(step())
    return samples


def describe_setting(setting: Setting) -> dict[str, Any]:
    """The setting, which every row repeats."""
    resolved = setting.config
    return {
        "preset": resolved.preset,
        "backbone": resolved.model.backbone,
        "batch": resolved.train.batch,
        "in_steps": resolved.data.in_steps,
        "out_steps": resolved.data.out_steps,
        "channels": setting.channels,
        "size": list(setting.size),
    }


def statistics_of(samples: dict[str, list[Taken]], name: str) -> dict[str, Any]:
    """Milliseconds a step, ratios to the predictor alone and the parts' shares; nothing for a variant that failed."""
    taken = samples.get(name)
    if not taken:
        numbers = ("ms_p50", "ms_p10", "ms_p90", "repeats", "ratio_to_plain", "cpu_ms_p50", "cpu_ratio_to_plain")
        return dict.fromkeys((*numbers, "cpu_ratio_to_plain_malloc", "shares"))
    seconds = [step.total for step in taken]
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    cpu = statistics.median(step.cpu for step in taken)
    plain, tuned = (samples.get(other) for other in ALONE)
    return {
        "ms_p50": 1e3 * statistics.median(seconds),
        "ms_p10": 1e3 * tenths[0],
        "ms_p90": 1e3 * tenths[-1],
        "repeats": len(seconds),
        "ratio_to_plain": statistics.median(seconds) / statistics.median(s.total for s in plain) if plain else None,
        "cpu_ms_p50": 1e3 * cpu,
        "cpu_ratio_to_plain": cpu / statistics.median(s.cpu for s in plain) if plain else None,
        "cpu_ratio_to_plain_malloc": cpu / statistics.median(s.cpu for s in tuned) if tuned else None,
        "shares": {part: sum(step.parts.get(part, 0.0) for step in taken) / sum(seconds) for part in PARTS},
    }
