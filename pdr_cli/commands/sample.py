"""`pdr sample`: a synthetic data file to try everything on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pdr_cli.data import formats, samples, scene_samples
from pdr_cli.data.formats import scenefile
from pdr_cli.data.formats.hdf5 import HDF5
from pdr_cli.data.formats.netcdf import NetCDF
from pdr_cli.data.formats.video import Video
from pdr_cli.data.scenes import Scene
from pdr_cli.errors import UsageError
from pdr_cli.system import logs
from pdr_cli.system.atomic import check_output

SUFFIXES = {
    "weather": NetCDF.outputs,
    "traffic": (*HDF5.outputs, *NetCDF.outputs),
    "video": Video.outputs,
    samples.SCENES: scenefile.SUFFIXES,
}


def run(kind: str, output: Path, seed: int) -> None:
    """Write a sample of `kind` to `output` and print its path.

    Raises:
        UsageError: unknown kind, negative seed, or a suffix of a format that does not fit it.
        OutputError: the output cannot be created.
    """
    samples.check(kind, seed, SUFFIXES)
    if output.suffix.lower() not in SUFFIXES[kind]:
        raise UsageError(f"output {output}: a {kind} sample is written to {' or '.join(SUFFIXES[kind])}")
    check_output(output)
    if kind == samples.SCENES:
        scenefile.write(output, _scenes(seed), scene_samples.SCENES, samples.provenance(kind, seed))
    else:
        formats.write(samples.make(kind, seed), output, samples.provenance(kind, seed))
    print(output)


def _scenes(seed: int) -> Iterator[Scene]:
    """The scenes of a seed, each made when it is asked for."""
    count = scene_samples.SCENES
    with logs.progress("sample ") as bar:
        for number in range(count):
            yield scene_samples.make(seed, number)
            bar.update((number + 1) / count, f"{number + 1} of {count} scenes")
