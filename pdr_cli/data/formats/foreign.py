"""Files of formats that are not read: what they are, and what makes a file of them that is read."""

from __future__ import annotations

from pathlib import Path

from pdr_cli.errors import DataError

EXAMINED = 2**16  # bytes at the beginning of a file
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of files above 4 GB
TIFF_WAY_OUT = (
    "read the files with rioxarray.open_rasterio, join them along their times with xarray.concat, and write that with "
    "to_netcdf"
)
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
