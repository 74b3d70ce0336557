"""Files of formats that are not read: what they are, and what makes a file of them that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pdr_cli.errors import DataError

EXAMINED = 2**16  # bytes at the beginning of a file
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of files above 4 GB
TIFF_WAY_OUT = (
    "read the files with rioxarray.open_rasterio, join them along their times with xarray.concat, and write that with "
    "to_netcdf"
)
NPY = b"\x93NUMPY"
FRAMES = {3: "", 4: "[:, 0]", 5: "[0, :, 0]"}  # index of the frames [time, y, x] of an array, by its number of axes
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # of protocols 2 to 5
TAR_MARK = slice(257, 262)
REFERENCES = (b'"refs"', b'".zgroup"', b'".zattrs"')  # keys of kerchunk


def recognised(path: Path) -> DataError | None:
    """The error for a file or folder of a format that is known and not read; None for any other."""
    named = _of_folder(path) if path.is_dir() else _of_file(path)
    if named is None:
        return None
    what, way_out = named
    return DataError(f"{path} is {what}, which is not read", way_out=way_out)


def _of_file(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as stream:
        head = stream.read(EXAMINED)
    start = head.lstrip()[:16].lower()
    if head[TAR_MARK] == b"ustar":
        return "a tar archive", f"unpack it first: tar xf {path}"
    if head[:4] in TIFF:
        return "TIFF, a format without times", TIFF_WAY_OUT
    if head.startswith(NPY):
        return _array(path)
    if head.startswith(PICKLE):
        return "a Python pickle, which may run code when it is read", (
            "load it where you trust it, and save its arrays X_train, Y_train, X_test and Y_test [windows, steps, channels, "
            "rows, columns] with numpy.savez"
        )
    if start.startswith(b"{") and any(key in head for key in REFERENCES):
        return "a kerchunk reference file", _kerchunk(path)
    if head[:4] == b"PK\x03\x04":
        return "a ZIP archive", f"unpack it first: unzip {path}"
    if start.startswith((b"<!doctype html", b"<html")):
        return (
            "a web page",
            "the download gave a page, such as one for a login, in place of the data; get the file again",
        )
    return None


def _array(path: Path) -> tuple[str, str]:
    """A NumPy array in words, by its header, and the command that writes its frames to NetCDF."""
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    except (ValueError, EOFError, OSError) as error:
        return f"a NumPy array with a damaged header ({error})", "get the file again"
    what = f"a NumPy array of {' x '.join(map(str, shape))} {dtype}, without times and names of its axes"
    return what, _frames_to_netcdf(path, len(shape)) + (
        "write pictures as clips, and windows cut beforehand as X_train, Y_train, X_test and Y_test with numpy.savez"
    )


def _frames_to_netcdf(path: Path, axes: int) -> str:
    """The command for frames [time, y, x] of an array of so many axes; "" where it has no such frames."""
    if axes not in FRAMES:
        return ""
    code = (
        f"import numpy, pandas, xarray; a = numpy.load('{path}'){FRAMES[axes]}; xarray.DataArray(a, name='field', "
        "dims=('time', 'y', 'x'), coords={'time': pandas.date_range('2024-01-01', periods=len(a), freq='1h')})"
        ".to_netcdf('OUT.nc')"
    )
    return f'write frames [time, y, x] with their own times to NetCDF: python -c "{code}"; '


def _of_folder(path: Path) -> tuple[str, str] | None:
    if (path / ".zmetadata").is_file() and any(path.glob("*/refs.*.parq")):
        return "a kerchunk reference folder", _kerchunk(path)
    if (path / "refs").is_dir() and any((path / n).exists() for n in ("snapshots", "manifests", "config.yaml", "repo")):
        code = (
            "import icechunk, xarray; s = icechunk.Repository.open(icechunk.local_filesystem_storage('"
            f"{path}')).readonly_session('main').store; xarray.open_zarr(s, consolidated=False).to_zarr('OUT.zarr')"
        )
        return "an Icechunk repository", f'write it to Zarr (pip install icechunk): python -c "{code}"'
    return None


def _kerchunk(path: Path) -> str:
    code = f"import xarray; xarray.open_dataset('{path}', engine='kerchunk').to_zarr('OUT.zarr')"
    return f'write it to Zarr (pip install kerchunk fastparquet): python -c "{code}"'
