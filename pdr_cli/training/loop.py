"""The training loop: steps, validation, best and last kept, stopped and resumed at any step."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pdr_cli.config import TrainConfig, parse_duration
from pdr_cli.data import times as time_axis
from pdr_cli.data.missing import Filling
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import size
from pdr_cli.data.windows import Windows
from pdr_cli.errors import DataError, InterruptedRun
from pdr_cli.models import interfaces
from pdr_cli.models.pdr import PDR
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic, space
from pdr_cli.system.logs import Progress, log
from pdr_cli.system.memory import SAME, Batches
from pdr_cli.training import schedule, state, step
from pdr_cli.training.losses import Loss
from pdr_cli.training.setup import set_up
from pdr_cli.training.state import Position
from pdr_cli.training.step import Batch

SHOWN = 4  # windows of a batch that a message names
SAVE_SECONDS = 600.0  # a state this old is renewed within an epoch, so that kill -9 costs at most this much


class NonFiniteLossError(DataError):
    """Training diverged: the loss is NaN or infinite."""

    name = "E_NON_FINITE_LOSS"


@dataclass
class Trainer:
    """One run.

    Args:
        network: on its device.
        loss: on the network's scale.
        train: training windows.
        val: validation windows.
        scaling: data units to network units.
        config: the [train] table.
        run: where everything is kept.
        save_best: called with the position when validation improves; writes the model file.
        filling: what stands for missing values in observed frames.
        area: how much each cell counts in the loss, [H, W]; None: all alike.
    """

    network: PDR
    loss: Loss
    train: Windows
    val: Windows
    scaling: Scaling
    config: TrainConfig
    run: RunFolder
    device: torch.device
    save_best: Callable[[Position], None]
    filling: Filling
    area: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.optimizer = set_up(self.network, self.config, size(self.train.series[0]), self.device)
        self.per_epoch = max(1, len(self.train) // self.config.batch)
        total = self.per_epoch * self.config.epochs
        self.total = min(total, self.config.steps) if self.config.steps else total
        self.budget = parse_duration(self.config.budget) or math.inf
        self.val = self.val.spread(self.config.val_windows)
        self.position = Position()
        self.network.train()
        means = "batch norms take their means over these" if step.batch_norms(self.network) else SAME
        self.batches = Batches("--set train.batch={}", outcome=means)
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def resume(self, which: Literal["last", "last-1"] = "last") -> None:
        """Go on from the run's saved state."""
        self.position = state.load(self.run, self.network, self.optimizer, which)
        _keep_metrics_until(self.run, self.position.step)

    def fit(self, progress: Progress) -> Position:
        """Train to the end of steps or budget, or until a signal.

        Raises:
            NonFiniteLossError: at the first loss that is no number; the best model so far stays.
            InterruptedRun: SIGINT, SIGTERM or SIGUSR1 came; the state is saved.
        """
        began = time.monotonic() - self.position.elapsed
        saved = time.monotonic()
        with _signals() as received:
            while self.position.step < self.total and time.monotonic() - began < self.budget:
                self._step(began)
                self.position.elapsed = time.monotonic() - began
                if self.position.step % self.per_epoch == 0:
                    self._validate(progress)
                    self.save()
                    saved = time.monotonic()
                elif time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if received:
                    self.save()
                    name = signal.Signals(received[0]).name
                    raise InterruptedRun(
                        f"{name} at step {self.position.step}; state saved, continue with --resume -o {self.run.path}",
                        received[0],
                    )
                progress.update(self._fraction(began), f"step {self.position.step}/{self.total}")
        if self.position.step % self.per_epoch:
            self._validate(progress)
        self.save()
        self._record("finished", best_step=self.position.best_step, best_loss=self.position.best_loss)
        return self.position

    def seconds_per_step(self, steps: int = 3) -> float:
        """How long a step takes, from a few after a first. They change the network: for one that is thrown away."""
        self._step(time.monotonic())
        began = time.monotonic()
        for _ in range(steps):
            self._step(began)
        return (time.monotonic() - began) / steps

    def save(self) -> None:
        """Replace the run's state."""
        state.save(self.run, self.position, self.network, self.optimizer)

    def _fraction(self, began: float) -> float:
        """How much of the run is done, by steps or by time, whichever is further."""
        return min(1.0, max(self.position.step / self.total, (time.monotonic() - began) / self.budget))

    def _step(self, began: float) -> None:
        rate = self._set_rate(began)
        self.network.train()
        which = self._batch()
        batch, done = self._tensors(self.train, which), self._fraction(began)
        take_back = step.remember(self.network, self.device)

        def undo() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            take_back()

        loss, terms = self.batches.attempt(partial(self._gradients, batch, which, done), len(which), undo)
        if self.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.position.step += 1
        if self.position.step % self.config.log_every == 0:
            self._record("step", lr=rate, loss=float(loss), **{k: float(v) for k, v in terms.items()})

    def _gradients(
        self, batch: Batch, which: np.ndarray, done: float, at_once: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Give the parameters the gradients of a batch; returns its loss, and its terms to log.

        Raises:
            NonFiniteLossError: the loss is no number.
        """
        _, y, weight, _ = batch
        with self._autocast:
            out = step.forward_in_parts(self.network, batch, done, at_once)
            loss, terms = self.loss(out.fused, y, weight)
            total = loss + sum(out.terms.values())
            terms |= out.terms
            if self.config.coarse_weight:
                # Unsupervised, the coarse forecast becomes whatever suits the fusion, and feeding it back goes astray.
                terms["coarse_loss"] = coarse_loss = self.loss(out.coarse, y, weight)[0]
                total = total + self.config.coarse_weight * coarse_loss
        if not torch.isfinite(total):
            raise NonFiniteLossError(
                f"the loss is {float(total.detach()):g} at step {self.position.step + 1}, {self._where(which)}; what was "
                f"saved stays. Try a smaller --set train.lr (now {self.config.lr:g}) or --set train.clip_norm=1"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        return loss.detach(), {k: v.detach() for k, v in terms.items()}

    def _set_rate(self, began: float) -> float:
        """Give the optimiser the rate of this step, by steps or by time, whichever is further; returns it."""
        epochs = self.total / self.per_epoch
        name = self.config.schedule
        by_steps = schedule.progress_at(name, self.position.step, steps_per_epoch=self.per_epoch, epochs=epochs)
        progress = min(1.0, max(by_steps, (time.monotonic() - began) / self.budget))
        warmup = self.config.warmup_epochs / epochs
        rate = schedule.learning_rate(name, self.config.lr, progress=progress, warmup=warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            group["betas"] = (schedule.beta1(name, progress), group["betas"][1])
        return rate

    def _batch(self) -> np.ndarray:
        """The windows of this step: epoch e is shuffled by seed and e alone, so a resumed run sees the same order."""
        epoch, place = divmod(self.position.step, self.per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.train))
        return order[place * self.config.batch : (place + 1) * self.config.batch]

    def _tensors(self, windows: Windows, which: np.ndarray) -> Batch:
        """Windows in network units. Land is filled in all frames, other missing values in observed ones."""
        may_lack: Literal["none", "following", "all"] = "none" if windows.never_observed is None else "following"
        frames = windows.batch(which, missing="all" if self.filling.method != "none" else may_lack)
        known = np.isfinite(np.concatenate(frames, axis=1))
        observed = self.filling.apply(frames[0], [windows.times(int(i))[: windows.in_steps] for i in which])
        following = self.scaling.apply(self.filling.fill_never_observed(frames[1]))
        following = np.where(np.isfinite(following), following, np.float32(0))
        x, y, there = (torch.from_numpy(f).to(self.device) for f in (self.scaling.apply(observed), following, known))
        return Batch(x, y, self._weight(known[:, windows.in_steps :]), None if known.all() else there)

    def _weight(self, known: np.ndarray) -> torch.Tensor | None:
        """How much each value of [B, τ, C, H, W] counts, or None where all count alike."""
        if known.all() and self.area is None:
            return None
        weight = known.astype(np.float32) * (1 if self.area is None else self.area.astype(np.float32))
        return torch.from_numpy(weight).to(self.device)

    def _where(self, which: np.ndarray) -> str:
        """Which batch of which epoch a step was, and where its windows begin in the data."""
        epoch, place = divmod(self.position.step, self.per_epoch)
        starts = []
        for number, start in self.train.places[which[:SHOWN]]:
            series = self.train.series[number]
            starts.append(f"{Path(series.attrs['files'][0]).name} {time_axis.label(series.time.values[start])}")
        more = f" and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
        return f"batch {place + 1} of epoch {epoch + 1} (windows from {', '.join(starts)}{more})"

    def _validate(self, progress: Progress) -> None:
        total = 0.0
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(self.val), self.config.batch):
                which = np.arange(start, min(start + self.config.batch, len(self.val)))
                x, y, weight, _ = self._tensors(self.val, which)
                with self._autocast:
                    fused = self.batches.attempt(partial(self._forecast, x, y.shape[1]), len(which))
                    loss, _ = self.loss(fused, y, weight)
                total += float(loss) * len(which)
        value = total / len(self.val)
        self._record("validation", epoch=self.position.step / self.per_epoch, loss=value)
        log.debug("step %d: validation loss %.5f", self.position.step, value)
        if value < self.position.best_loss:
            self.position.best_loss, self.position.best_step = value, self.position.step
            self.save_best(self.position)

    def _forecast(self, x: torch.Tensor, steps: int, at_once: int) -> torch.Tensor:
        """[B, T, C, H, W] → [B, τ, C, H, W]."""
        parts = (x[i : i + at_once] for i in range(0, len(x), at_once))
        return torch.cat([self.network(interfaces.Batch(part, steps)).fused for part in parts])

    def _record(self, event: str, **values: Any) -> None:
        line = {"event": event, "step": self.position.step, "seconds": round(self.position.elapsed, 2), **values}
        with space.storage_errors(self.run.metrics), self.run.metrics.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that arrived, in order; the loop looks at them between steps. A second one acts at once."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {s: signal.signal(s, note) for s in watched}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_metrics_until(run: RunFolder, step: int) -> None:
    """Drop log lines that were written after the state being resumed from, and a half-written last one."""
    kept = []
    for line in run.metrics.read_text().splitlines() if run.metrics.is_file() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step and entry["event"] != "finished":
            kept.append(line)
    atomic.write_text(run.metrics, "".join(line + "\n" for line in kept))
