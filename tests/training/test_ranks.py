"""Training on several ranks: the numbers are those of one process, by torchrun and in threads that stand for ranks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pdr_cli.errors import UsageError
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system.memory import Batches
from pdr_cli.system.processes import Processes
from pdr_cli.training import norms, state
from pdr_cli.training.losses import LossOptions, build_loss
from pdr_cli.training.ranks import Gradients, Ranks
from tests.builders import field, weather_file
from tests.cli import pdr
from tests.conftest import tiny_settings
from tests.torchrun import assert_same, done, halved, lines_of_errors, metrics, reached, started, workers

# simvp has group norms, so that forecasts do not depend on the other windows. A small rate keeps rounding small: Adam makes
# steps of the size of the rate of gradients that are nothing but rounding.
EXACT = [
    "model.backbone=simvp",
    "train.lr=1e-4",
    "train.ema=0.9",
    "train.clip_norm=0.5",
    "train.val_every=3",
    "train.schedule=constant",
]
STEPS = 12
ON = ["--steps", str(STEPS), "--save-every", "3", "-q"]
MASKED = ["train.loss=l1ssim", "train.latitude_weights=true", "data.fill_missing=persist", "train.val_windows=20"]


def on_each(size: int, work: Callable[[Ranks], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `work` gives on each of some ranks, or the exception that it raised: threads, which exchange at a barrier."""
    barrier, here = threading.Barrier(size, timeout=20), threading.local()
    told: list[Any] = [None] * size
    found: list[Any] = [None] * size

    def all_gather(into: list[torch.Tensor], mine: torch.Tensor) -> None:
        told[here.rank] = mine.clone()
        barrier.wait()
        for one, numbers in zip(into, told, strict=True):
            one.copy_(numbers)
        barrier.wait()

    def run(rank: int) -> None:
        here.rank = rank
        try:
            found[rank] = work(Ranks(Processes(rank, size)))
        except Exception as error:
            found[rank] = error

    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    monkeypatch.setattr(Processes, "answering", lambda self: contextlib.nullcontext())
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.parametrize("name", ["l1ssim", "mse", "l1", "l2reg", "crps"])
def test_losses_of_ranks_are_those_of_the_whole_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    pred, target = (torch.randn(4, 3, 2, 9, 8, generator=rng) for _ in range(2))
    weight = (
        torch.rand(4, 3, 2, 9, 8, generator=rng) < torch.tensor([0.99, 0.9, 1, 1])[:, None, None, None, None]
    ).float()
    whole = pred.clone().requires_grad_()
    loss, terms = build_loss(name, LossOptions(0.5, torch.ones(2)))(whole, target, weight)
    loss.backward()

    def of_rank(ranks: Ranks) -> tuple[float, dict[str, float], torch.Tensor]:
        mine = ranks.share(4)
        own = pred[mine].clone().requires_grad_()
        known = bool(weight[mine].all())  # then training gives no weight, and the other rank does
        found, its = build_loss(name, LossOptions(0.5, torch.ones(2), pool=ranks.mean))(
            own, target[mine], None if known else weight[mine]
        )
        found.backward()
        return float(found.detach()), {k: float(v) for k, v in its.items()}, own.grad

    first, second = on_each(2, of_rank, monkeypatch)
    assert first[0] == second[0] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert first[1] == second[1] == pytest.approx({k: float(v) for k, v in terms.items()}, rel=1e-5)
    torch.testing.assert_close(torch.cat([first[2], second[2]]), whole.grad, rtol=1e-5, atol=1e-9)


def test_batch_norms_of_ranks_are_those_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(1)) * 3 + 7
    to = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(2))

    def of(part: slice, ranks: Ranks | None) -> list[torch.Tensor]:
        norm = nn.BatchNorm2d(3)
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(3))
        if ranks is not None:
            norms.pool([norm], ranks)
        own = x[part].clone().requires_grad_()
        made = norm(own)
        (made * to[part]).sum().backward()
        evaluated = norm.eval()(own)
        return [made, own.grad, evaluated, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]

    whole = of(slice(None), None)
    first, second = on_each(2, lambda ranks: of(ranks.share(6), ranks), monkeypatch)
    for number, expected in enumerate(whole):
        mine, others = first[number], second[number]
        found = torch.cat([mine, others]) if number < 3 else mine + others if number < 5 else mine
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert first[5].equal(second[5])
    assert first[6].equal(second[6])


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_rank_without_memory_halves_the_batches_of_all(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_rank(ranks: Ranks) -> tuple[float, int | None]:
        batches = Batches("--set train.batch={}")

        def work(at_once: int) -> float:
            short = ranks.processes.rank == 1 and at_once > 2
            if short and place == "before":
                raise MemoryError("DefaultCPUAllocator")
            mean = float(ranks.mean(torch.tensor(float(ranks.processes.rank)), 1))
            if short:
                raise MemoryError("DefaultCPUAllocator")
            return mean

        return batches.attempt(ranks.agreed(work), 4), batches.halved_to

    assert on_each(2, of_rank, monkeypatch) == [(0.5, 2)] * 2


def test_ranks_at_different_places_of_a_step_do_not_mix_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_each(2, lambda ranks: ranks.exchange(*range(1 + ranks.processes.rank)), monkeypatch)
    assert all("different places" in str(error) for error in found), found


@pytest.mark.parametrize(
    ("batch", "count", "says"),
    [(10, 100, "train.batch is 10, which 4 ranks cannot share equally; take --set train.batch=8 or 12"),
     (8, 6, "there are 6 training windows, which 4 ranks cannot share equally; take --set train.batch=4"),
     (8, 3, "start 3 or fewer")],
)  # fmt: skip
def test_steps_that_ranks_cannot_share_are_refused(batch: int, count: int, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        Ranks(Processes(0, 4)).check(batch, count)
    assert says in str(refused.value)


def test_the_loss_of_others_is_refused() -> None:
    with pytest.raises(UsageError, match="not of pdr"):
        Ranks(Processes(0, 2)).check_loss("mine:Loss", type("Loss", (), {"__module__": "mine"}))


def holed(path: Path) -> Path:
    """Weather of which 2 % are missing, so that windows have different weights."""
    values = field(160, 13, 15)
    values[np.random.default_rng(1).random(values.shape) < 0.02] = np.nan
    return weather_file(path, values=values)


def assert_close(one: Path, other: Path, rel: float) -> None:
    for mine, theirs in zip(metrics(one), metrics(other), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert theirs[key] == (value if isinstance(value, str) else pytest.approx(value, rel=rel)), (key, mine)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that go on from `begun`, of two steps: `one` in one process, `two` on two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    data, settings = holed(folder / "holes.nc"), tiny_settings(*EXACT, *MASKED)
    assert (
        pdr("train", "--preset", "demo", "--data", data, "-o", folder / "begun", "--steps", "2", "-q", *settings).code
        == 0
    )
    halved(folder / "begun", 2)  # of a step of 8 windows a pass takes 2, on two ranks of 4
    for run in ("one", "two"):
        shutil.copytree(folder / "begun", folder / run)
    assert pdr("train", "--resume", "-o", folder / "one", *ON).code == 0
    code, out, err = done(["train", "--resume", "-o", folder / "two", *ON])
    assert (code, out) == (0, f"{folder / 'two'}\n"), err
    return folder


def test_two_ranks_train_as_one_process_does(runs: Path) -> None:
    assert_close(runs / "one", runs / "two", 1e-6)
    # What the windows of a step do not share is equal to the bit: the anchor's scores, and the validation of given weights.
    assert metrics(runs / "one")[-1]["anchor_loss"] == metrics(runs / "two")[-1]["anchor_loss"]


@pytest.mark.slow
def test_a_run_that_lost_a_rank_is_continued_to_the_bit(runs: Path) -> None:
    part = runs / "part"
    shutil.copytree(runs / "begun", part)
    process = started(["train", "--resume", "-o", part, *ON])
    assert reached(process, part, 4)
    os.kill(workers(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    lines = lines_of_errors(err)
    assert len(lines) == 1, err
    assert "another of the 2 processes has ended" in lines[0]
    assert lines[0].endswith(f"continue with --resume -o {part} [E_LOST_PROCESS, exit 75]")
    assert 4 <= state.read(RunFolder(part).state)[0].step < STEPS
    code, _, err = done(["train", "--resume", "-o", part, *ON])
    assert code == 0, err
    assert_same(runs / "two", part, STEPS)


def test_gradients_are_summed_and_those_that_no_rank_has_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.ModuleDict({"used": nn.Conv2d(2, 3, 3), "unused": nn.Linear(2, 2)}).to(
        memory_format=torch.channels_last
    )
    network["used"](torch.ones(1, 2, 4, 4)).sum().backward()
    own = network["used"].weight.grad.clone()
    # The other rank of two has the same gradients.
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(2))
    Gradients(network, Ranks(Processes(0, 2))).sum()
    assert network["used"].weight.grad.equal(2 * own)
    assert network["used"].weight.grad.is_contiguous(memory_format=torch.channels_last)
    assert network["unused"].weight.grad is None
