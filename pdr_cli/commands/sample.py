"""`pdr sample`: a synthetic data file to try everything on."""

from __future__ import annotations

from pathlib import Path

from pdr_cli.data import formats, samples
from pdr_cli.data.formats.hdf5 import HDF5
from pdr_cli.data.formats.netcdf import NetCDF
from pdr_cli.data.formats.video import Video
from pdr_cli.errors import UsageError
from pdr_cli.system.atomic import check_output

SUFFIXES = {
    "weather": NetCDF.outputs,
    "traffic": (*HDF5.outputs, *NetCDF.outputs),
    "video": Video.outputs,
}


def run(kind: str, output: Path, seed: int) -> None:
    """Write a sample of `kind` to `output` and print its path.

    Raises:
        UsageError: unknown kind, negative seed, or a suffix of a format that does not fit it.
        OutputError: the output cannot be created.
    """
    samples.check(kind, seed)
    if output.suffix.lower() not in SUFFIXES[kind]:
        raise UsageError(f"output {output}: a {kind} sample is written to {' or '.join(SUFFIXES[kind])}")
    check_output(output)
    formats.write(samples.make(kind, seed), output, samples.provenance(kind, seed))
    print(output)
