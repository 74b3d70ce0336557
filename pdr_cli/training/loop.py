"""The training loop: steps, validation, best and last kept, stopped and resumed at any step."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch

from pdr_cli.errors import DataError, InterruptedRun, LostProcessError
from pdr_cli.models.interfaces import Terms
from pdr_cli.runs import metrics
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import TrainConfig
from pdr_cli.system.logs import Progress, log
from pdr_cli.system.memory import SAME, Batches
from pdr_cli.training import state, step
from pdr_cli.training.averages import Average
from pdr_cli.training.length import Clock, Length
from pdr_cli.training.lessons import Lesson
from pdr_cli.training.loggers import Loggers
from pdr_cli.training.norms import pool
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.ranks import ALONE, Gradients, Ranks
from pdr_cli.training.schedule import build_schedule
from pdr_cli.training.setup import has_parameters, set_up
from pdr_cli.training.state import Position
from pdr_cli.training.validation import MARGIN, best, excess

SAVE_SECONDS = 600.0  # a state this old is renewed within an epoch, so that kill -9 costs at most this much

AnyLesson = TypeVar("AnyLesson", bound=Lesson[Any])


class NonFiniteLossError(DataError):
    """Training diverged: the loss is NaN or infinite."""

    name = "E_NON_FINITE_LOSS"


@dataclass
class Trainer(Generic[AnyLesson]):
    """The loop of one run: its steps and their time, its signals, its state, and what is kept of it.

    Args:
        lesson: the network, its examples, their loss and the validation.
        config: the [train] table.
        run: the folder that state, model and metrics are kept in.
        device: the network's.
        save_model: called with the position when validation improves, and where the anchor alone is the model after all;
            writes the model file.
        ranks: that take the steps together; the first writes.
        loggers: that record the course of the training beside metrics.jsonl; None: there are none.
    """

    lesson: AnyLesson
    config: TrainConfig
    run: RunFolder
    device: torch.device
    save_model: Callable[[Position], None]
    ranks: Ranks = ALONE
    loggers: Loggers | None = None

    def __post_init__(self) -> None:
        self.network = self.lesson.network
        self.optimizer = set_up(self.network, self.config, self.lesson.size, self.device)
        self.schedule = build_schedule(self.config.schedule)
        self.length = Length.of(self.config, self.lesson.count if has_parameters(self.network) else 0)
        self.average = Average(self.network, self.config.ema)
        self.position = Position()
        self.network.train()
        self.randomness = Randomness(self.network, self.device)
        norms = step.batch_norms(self.network)
        self.batches = Batches(
            "--set train.batch={}", outcome="batch norms take their means over these" if norms else SAME
        )
        pool(norms, self.ranks)
        self._gradients_of_all = Gradients(self.network, self.ranks)
        self._clock, self._saved = Clock(self.position, self.ranks), time.monotonic()
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def resume(self, which: Literal["last", "last-1"] = "last") -> None:
        """Continue from the run's saved state."""
        self.position = state.load(self.run, self._parts(), which, self.ranks)
        self.batches.restore(self.position.at_once)
        if self.ranks.first:
            metrics.keep_until(self.run, self.position.step)

    def fit(self, progress: Progress, until: float = math.inf) -> Position:
        """Train until the end of the run, or until a signal, or until a step at which the state is saved and no more.

        Raises:
            NonFiniteLossError: at the first loss that is NaN or infinite; the best model so far stays.
            InterruptedRun: SIGINT, SIGTERM or SIGUSR1 came; the state is saved.
            LostProcessError: another rank has ended or does not answer; the state is saved, unless that was in a validation.
        """
        self._clock, self._saved = Clock(self.position, self.ranks), time.monotonic()
        with _signals(at_once=self.ranks.alone) as received, ExitStack() as at_end:
            at_end.callback(self.lesson.end)
            if self.loggers is not None and self.ranks.first:
                self.loggers.open(self.position.step)
                at_end.callback(self.loggers.close)
            try:
                while not self._ended() and self.position.step < until:
                    self._step()
                    self._keep()
                    self._stop_on(received)
                    done = self.length.progress(self.position)
                    progress.update(done, f"step {self.position.step}/{self.length.steps}")
                if self._ended():
                    return self._finish()
                self.save()
                return self.position
            except LostProcessError as error:
                raise self._left(error) from error

    def _ended(self) -> bool:
        self._clock.stamp(self.position)
        return self.length.reached(self.position) or self.length.stalled(self.position)

    def seconds_per_step(self, steps: int = 3) -> float:
        """Seconds per step, from a few steps after a first one. They change the network, which is of no use afterwards."""
        if not self.length.steps:
            return 0.0
        self._step()
        began = time.monotonic()
        for _ in range(steps):
            self._step()
        return (time.monotonic() - began) / steps

    def save(self) -> None:
        """Replace the run's state."""
        self.position.at_once = self.batches.halved_to
        if self.ranks.first:
            state.save(self.run, self.position, self._parts())
        self._saved = time.monotonic()

    def _parts(self) -> state.Parts:
        return state.Parts(self.network, self.optimizer, self.randomness, self.average)

    def _keep(self) -> None:
        """Validate where it is due, and save at the end of an epoch, and within one if the saved state is old."""
        if self._validation_is_due and self.lesson.is_validated(self.length.progress(self.position)):
            self._validate()
        if self.length.save_is_due(self.position) or self.ranks.of_first(time.monotonic() - self._saved) > SAVE_SECONDS:
            self.save()

    @property
    def _validation_is_due(self) -> bool:
        step = self.position.step
        return step > 0 and step % self.length.val_every == 0 and self.position.validated != step

    def _stop_on(self, received: list[int]) -> None:
        """Save and end where a rank has received a signal; no rank ends before the state is saved."""
        number = max(int(told[0]) for told in self.ranks.exchange(received[0] if received else 0))
        if not number:
            return
        self.save()
        self.ranks.exchange()
        raise InterruptedRun(
            f"{signal.Signals(number).name} at step {self.position.step}; state saved", number, self._way_on
        )

    @property
    def _way_on(self) -> str:
        return f"continue with --resume -o {self.run.path}"

    def _left(self, error: LostProcessError) -> LostProcessError:
        """What a lost rank leaves: the state of the last step, on the first rank, but where its validation is not done."""
        if not self.ranks.first or self._validation_is_due:
            return error.replace(way_out=f"{self._way_on}, from the last saved state")
        self.save()
        return error.replace(way_out=f"state saved at step {self.position.step}; {self._way_on}")

    def _finish(self) -> Position:
        if self.position.validated != self.position.step:
            self._validate()
        self._fall_back()
        self.save()
        if not math.isfinite(self.position.best_loss):
            raise NonFiniteLossError(
                f"no loss on the validation windows was finite until step {self.position.step}, so no model was saved",
                way_out="the forecast of the network in eval mode is not finite; look at its layers that differ there",
            )
        self._record("finished", best_step=self.position.best_step, **best(self.position))
        return self.position

    def _step(self) -> None:
        rate = self._set_rate()
        self.network.train()
        loss, terms = self._gradients_of_step()
        if self.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.position.step += 1
        self.average.update(self.position.step)
        self._clock.stamp(self.position)
        if self.position.step % self.config.log_every == 0:
            self._record("step", lr=rate, loss=float(loss), **{k: float(v) for k, v in terms.items()})

    def _gradients_of_step(self) -> tuple[torch.Tensor, Terms]:
        """Backpropagate the windows of a step, of all ranks; returns its loss and the terms to log.

        Raises:
            NonFiniteLossError, MemoryShortageError: on all ranks.
            LostProcessError: all is as before the step.
        """
        undraw = self._snapshot()
        try:
            batch = self._batch()
            self.lesson.expect(partial(self._windows, ahead=1))
            with self._own_draws():
                found = self._attempt(batch)
                self._gradients_of_all.sum()
            return found
        except LostProcessError:
            undraw()
            raise

    def _attempt(self, batch: Any) -> tuple[torch.Tensor, Terms]:
        """Backpropagate this rank's examples, where memory is short on any rank half as many at once."""
        restore = step.snapshot(self.network, self.randomness)

        def undo() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            restore()

        work = self.ranks.agreed(partial(self._gradients, batch))
        return self.batches.attempt(work, self.lesson.passes(batch), undo)

    def _snapshot(self) -> Callable[[], None]:
        """A function that undoes what a step changes before the optimiser; for a process alone, which needs none, nothing."""
        return (lambda: None) if self.ranks.alone else step.snapshot(self.network, self.randomness)

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Let each of several ranks draw by step and rank, because each has other windows; what all draw alike goes on."""
        if self.ranks.alone:
            yield
            return
        undraw = self.randomness.snapshot()
        self.randomness.begin((self.config.seed, self.position.step, self.ranks.processes.rank))
        try:
            yield
        finally:
            undraw()

    def _gradients(self, batch: Any, at_once: int) -> tuple[torch.Tensor, Terms]:
        """Backpropagate a batch; returns its loss and the terms to log.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        with self._autocast:
            total, loss, terms = self.lesson.learn(batch, at_once, self.randomness)
        if not torch.isfinite(total):
            raise self._diverged(float(total.detach()))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        return loss.detach(), {k: v.detach() for k, v in terms.items()}

    def _diverged(self, value: float) -> NonFiniteLossError:
        epoch, place = divmod(self.position.step, self.length.per_epoch)
        where = f"batch {place + 1} of epoch {epoch + 1} ({self.lesson.named(self._windows())})"
        return NonFiniteLossError(
            f"the loss is {value:g} at step {self.position.step + 1}, {where}; the saved model and state stay",
            way_out=f"try a smaller --set train.lr (now {self.config.lr:g}) or --set train.clip_norm=1",
        )

    def _set_rate(self) -> float:
        """Set the optimiser's rate for this step, by steps or by time, whichever is further; returns it."""
        length = self.length
        by_steps = self.schedule.progress(self.position.step, length.per_epoch, length.epochs)
        progress = self.lesson.scheduled(max(min(1.0, by_steps), length.pace(self.position)))
        rate = self.schedule.rate(self.config.lr, progress, self.config.warmup_epochs / length.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            group["betas"] = (self.schedule.beta1(progress), group["betas"][1])
        return rate

    def _batch(self) -> Any:
        """The examples of this step."""
        return self.lesson.batch(self._windows(), self.length.progress(self.position))

    def _windows(self, ahead: int = 0) -> np.ndarray:
        """Numbers of the examples of this step, or of one `ahead`.

        The order depends on seed and epoch alone, so that a resumed run keeps it.
        """
        epoch, place = divmod(self.position.step + ahead, self.length.per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(self.lesson.count)
        return order[place * self.config.batch : (place + 1) * self.config.batch]

    def _validate(self) -> None:
        """Scores of the averaged weights on the validation examples; a new best is saved as the model."""
        position = self.position
        with self.average.applied(), self._own_draws():
            scores = self.lesson.validate(self.batches, self._autocast)
            self._record("validation", epoch=position.step / self.length.per_epoch, **scores._asdict())
            log.debug("step %d: validation loss %.5f", position.step, scores.loss)
            if scores.loss < position.best_loss:
                position.best_loss, position.best_rmse = scores
                position.best_step, position.anchor_alone = position.step, False
                self._score_anchor()
                self._save_model()
            position.validated = position.step

    def _save_model(self) -> None:
        if self.ranks.first:
            self.save_model(self.position)

    def _score_anchor(self) -> None:
        """Validate the anchor alone, once in a run: what the network has to be better than."""
        if not self.length.steps or not math.isnan(self.position.anchor_loss):
            return
        scores = self.lesson.validate_anchor(self.batches, self._autocast)
        if scores is not None:
            self.position.anchor_loss, self.position.anchor_rmse = scores

    def _fall_back(self) -> None:
        """Save the anchor alone as the model where the best network is worse by more than the margin."""
        if self.config.fallback and not self.position.anchor_alone and excess(self.position) > MARGIN:
            self.position.anchor_alone = True
            self._save_model()

    def _record(self, event: str, **values: Any) -> None:
        if not self.ranks.first:
            return
        spent = {"seconds": round(self.position.elapsed, 2), "cpu_seconds": round(self.position.cpu, 2)}
        metrics.append(self.run, event, step=self.position.step, **spent, **values)
        if self.loggers is not None:
            self.loggers.log(event, self.position.step, spent | values)


@contextmanager
def _signals(at_once: bool) -> Iterator[list[int]]:
    """Received signals, in order; the loop looks at them between steps.

    Args:
        at_once: True if a second one ends the step. torchrun passes on a signal that the rank may have received itself.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received and at_once:
            raise KeyboardInterrupt
        received.append(number)

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {s: signal.signal(s, note) for s in watched}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
