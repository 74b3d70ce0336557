"""`pdr predict --every-init`: one forecast from each possible init, shared out over the processes of torchrun."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import names
from pdr_cli.inference import hindcast, request
from pdr_cli.inference import model as inference
from pdr_cli.inference.hindcast import Hindcast
from pdr_cli.inference.model import Model
from pdr_cli.inference.provenance import model_name, plausible, provenance
from pdr_cli.inference.request import Request
from pdr_cli.system import locks, space
from pdr_cli.system import processes as distributed
from pdr_cli.system.logs import Progress, Silence, log, progress
from pdr_cli.system.processes import Processes


def run(asked: Request) -> None:
    """Forecast from every init, unless the output is the answer to that already."""
    began = time.monotonic()
    with distributed.joined() as processes, _lock(asked, processes), _bar(processes) as bar:
        with processes.together():
            done = processes.first and asked.skip_existing and asked.output.exists() and _is_answered(asked)
        if processes.from_first(done):
            return
        with processes.together():
            trained = asked.load(inference.load, distributed.own_device(asked.device))
            job = _plan(asked, trained)
            about = _about(asked, job) if processes.first else {}
            log.info("%d forecasts of %d steps", len(job.inits), asked.lead_steps(trained))
        hindcast.write(
            job,
            asked.output,
            about,
            time_layout=asked.time_layout,
            compress=asked.compress,
            processes=processes,
            progress=bar,
        )
        if processes.first:
            print(_summary(asked, job, time.monotonic() - began))


@contextlib.contextmanager
def _lock(asked: Request, processes: Processes) -> Iterator[None]:
    """The lock of the output, which the first process holds for all.

    Raises:
        LockedError: in all of them.
    """
    with contextlib.ExitStack() as held:
        with processes.together():
            if processes.first:
                held.enter_context(locks.locked(asked.output))
        yield


def _bar(processes: Processes) -> contextlib.AbstractContextManager[Progress]:
    """Progress of the first process, which stands for the others'."""
    return progress("hindcast") if processes.first else contextlib.nullcontext(Silence())


def _plan(asked: Request, trained: Model) -> Hindcast:
    """The forecasts to be made, once nobody is writing the input any more, and room for them."""
    job = request.settled(lambda: hindcast.plan(trained, asked.open(trained), asked.steps), asked.paths, asked.wait)
    channels, y, x = (job.series.sizes[d] for d in ("channel", "y", "x"))
    space.check_space(asked.output, 4 * len(job.inits) * job.steps * channels * y * x)
    return job


def _is_answered(asked: Request) -> bool:
    job = _plan(asked, asked.load(inference.Deferred, asked.device))
    if not request.is_answered(asked.output, _identity(asked, job, request.series_sha256(job.series))):
        return False
    print(f"{asked.output}  up to date")
    return True


def _identity(asked: Request, job: Hindcast, input_sha256: str) -> str:
    return asked.identity(job.model, job.series, input_sha256, job.series.time.values)


def _about(asked: Request, job: Hindcast) -> dict[str, str]:
    """Global attributes: what the file of the first forecast would say, but for what is of all of them."""
    times, input_sha256 = job.series.time.values, request.series_sha256(job.series)
    first = job.model.observe(job.series, int(job.inits[0]))
    method = job.model.filling().method
    mended = () if method == "none" else (f"missing values filled by {method}",)
    return provenance(job.model, job.series, dataclasses.replace(first, notes=mended)) | {
        "title": f"Forecasts of {', '.join(names(job.series))} by pdr from {len(job.inits)} init times",
        "pdr_input_sha256": input_sha256,
        "pdr_input_window": f"{time_axis.label(times[0])}/{time_axis.label(times[job.inits[-1]])}",
        "pdr_request_id": _identity(asked, job, input_sha256),
        "pdr_plausible": json.dumps(plausible(job.example, job.model)),
    }


def _summary(asked: Request, job: Hindcast, seconds: float) -> str:
    ends = f"init {time_axis.label(job.times[0])} to {time_axis.label(job.times[-1])}"
    what = f"{len(job.inits)} forecasts of {job.steps} steps"
    return f"{asked.output}  {ends}  {what}  model {model_name(job.model.path)}  {seconds:.1f} s"
