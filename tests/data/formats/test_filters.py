"""HDF5 filters beyond those of every library: read through h5py where it has them, named where it has not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.errors import DataError
from tests.builders import field, weather_file
from tests.cli import pdr

ABSENT = 32099  # number of a filter that nobody has registered


def rewritten(path: Path, how: Mapping[str, Any], name: str = "t2m") -> Path:
    """A weather file whose variable went through an HDF5 filter."""
    plain = weather_file(path.with_suffix(".plain"), 8, name=name)
    with h5py.File(plain) as given, h5py.File(path, "w") as out:
        for axis in ("time", "lat", "lon"):
            given.copy(axis, out)
            out[axis].make_scale(axis)
        made = out.create_dataset(name, data=given[name][...], chunks=(4, 12, 14), **how)
        for index, axis in enumerate(("time", "lat", "lon")):
            made.dims[index].attach_scale(out[axis])
        made.attrs["units"] = "K"
    plain.unlink()
    return path


def with_absent_filter(path: Path) -> Path:
    """A weather file whose variable says that its chunks went through a filter that no library has."""
    rewritten(path, {})
    with h5py.File(path, "a") as out:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((4, 12, 14))
        made.set_filter(ABSENT, h5py.h5z.FLAG_OPTIONAL, ())
        whole = h5py.h5s.create_simple((8, 12, 14))
        found = h5py.h5d.create(out.id, b"wind", h5py.h5t.IEEE_F32LE, whole, made)
        found.write_direct_chunk((0, 0, 0), bytes(100))
        for index, axis in enumerate(("time", "lat", "lon")):
            out["wind"].dims[index].attach_scale(out[axis])
    return path


def test_a_filter_that_netcdf_lacks_is_read_through_h5py(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = rewritten(tmp_path / "lzf.nc", {"compression": "lzf"})
    with netCDF4.Dataset(path) as plain, pytest.raises(RuntimeError, match="undefined filter"):
        plain["t2m"][0]
    (series,) = formats.open_series([path])
    assert np.array_equal(series.values[:, 0], field(8))
    assert np.array_equal(series.isel(time=slice(2, 5), y=[3, 1], x=-1).values[:, 0], field(8)[2:5, [3, 1], -1])
    result = pdr("inspect", path)
    assert result.code == 0
    assert "t2m needs HDF5 filter 32000 (lzf), which NetCDF lacks; it is read through h5py" in result.err


def test_missing_and_packed_values_are_decoded_behind_such_a_filter(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "lzf.nc", {"compression": "lzf"})
    with h5py.File(path, "a") as out:
        out["t2m"].attrs.update(_FillValue=np.float32(out["t2m"][0, 0, 0]), add_offset=1.0, scale_factor=2.0)
    (series,) = formats.open_series([path])
    expected = field(8) * 2 + 1
    expected[0, 0, 0] = np.nan
    np.testing.assert_allclose(series.values[:, 0], expected, rtol=1e-6)


def test_a_filter_that_nothing_has_is_named_and_not_called_damage(tmp_path: Path) -> None:
    path = with_absent_filter(tmp_path / "a.nc")
    (series,) = formats.open_series([path], ReadOptions(["t2m"]))
    assert np.array_equal(series.values[:, 0], field(8)), "the other variables are read"
    with pytest.raises(DataError) as raised:
        formats.open_series([path], ReadOptions(["wind"]))[0].load()
    message = str(raised.value)
    assert f"wind needs HDF5 filter {ABSENT}" in message
    assert "which is not installed; install it with: pip install hdf5plugin, or" in message
    assert f"h5repack -f wind:GZIP=4 {path} OUT" in message
    assert "damaged" not in message
    assert message in pdr("inspect", path, "--var", "wind").out


def test_the_plugins_that_the_message_names_are_used(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="200 MB; pip install hdf5plugin")
    path = rewritten(tmp_path / "a.nc", hdf5plugin.Blosc2())
    (series,) = formats.open_series([path])
    assert np.array_equal(series.values[:, 0], field(8))


@pytest.mark.parametrize("how", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_filters_of_every_library_are_left_to_netcdf(tmp_path: Path, how: dict[str, Any]) -> None:
    from pdr_cli.data.formats import filters

    assert filters.needed(rewritten(tmp_path / "a.nc", how)) == {}
    assert filters.needed(rewritten(tmp_path / "b.nc", {"compression": "lzf"})) == {"t2m": {32000: "lzf"}}
