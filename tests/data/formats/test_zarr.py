from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.formats.zarr import Zarr, is_store
from pdr_cli.data.series import Series, names, read_frames, units
from pdr_cli.errors import DataError, OutputError, TimeError, VariableError
from pdr_cli.system import atomic, hashes
from tests.builders import field, weather_file
from tests.cli import pdr


def zarr_file(path: Path, steps: int = 20, *, zarr_format: int = 3, **options: object) -> Path:
    """The same data as `weather_file`, as xarray writes them to Zarr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = weather_file(path.with_suffix(".source.nc"), steps, **options)  # type: ignore[arg-type]
    with xr.open_dataset(source) as data:
        data.to_zarr(path, zarr_format=zarr_format, consolidated=zarr_format == 2)
    source.unlink()
    return path


def read(paths: list[Path], variables: Sequence[str] = ()) -> Series:
    (series,) = Zarr().open(paths, ReadOptions(variables))
    return series


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_is_read_as_the_same_data_in_netcdf(tmp_path: Path, zarr_format: int) -> None:
    path = zarr_file(tmp_path / "a.zarr", zarr_format=zarr_format)
    series = read([path])
    assert (names(series), units(series)) == (["t2m"], ["K"])
    assert np.array_equal(read_frames(series, 3, 5)[:, 0], field(20)[3:5])
    given = formats.open_series([weather_file(tmp_path / "a.nc", 20)])[0]
    assert series.lat.values.tobytes() == given.lat.values.tobytes()
    assert (series.time.values == given.time.values).all()
    assert series.attrs["file_attrs"]["history"] == "made by a test"


def test_stores_are_found_in_folders_and_globs_and_not_looked_into(tmp_path: Path) -> None:
    late = zarr_file(tmp_path / "data" / "b.zarr", 10, start="2020-01-06")
    early = zarr_file(tmp_path / "data" / "deep" / "a.zarr", 10, start="2020-01-01")
    zarr_file(tmp_path / "data" / ".half.tmp.zarr", 10)
    assert formats.find_inputs([tmp_path / "data"]) == [late, early]
    assert formats.find_inputs([f"{tmp_path}/data/*.zarr"])[-1] == late
    assert formats.find_inputs([late]) == [late]
    times = read([late, early]).time.values
    assert times[0] == np.datetime64("2020-01-01") < times[-1]


def test_what_is_missing_is_named_as_for_netcdf(tmp_path: Path) -> None:
    path = zarr_file(tmp_path / "a.zarr")
    with pytest.raises(VariableError, match="Did you mean 't2m'"):
        read([path], ["t2"])
    no_time = tmp_path / "b.zarr"
    xr.Dataset({"t": (("time", "lat", "lon"), np.zeros((2, 3, 4)))}).to_zarr(no_time, consolidated=False)
    with pytest.raises(TimeError, match="no time coordinate"):
        read([no_time])


def test_a_store_whose_metadata_are_broken_is_damaged(tmp_path: Path) -> None:
    path = zarr_file(tmp_path / "a.zarr")
    (path / "t2m" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.zarr is damaged"):
        read([path])


def test_netcdf_and_zarr_are_not_mixed(tmp_path: Path) -> None:
    paths = [weather_file(tmp_path / "a.nc", 10), zarr_file(tmp_path / "a.zarr", 10)]
    with pytest.raises(DataError, match=r"a\.nc is NetCDF and .*a.zarr is Zarr; expected files of one format"):
        formats.open_series(paths)


def test_what_is_written_reads_back_bit_for_bit(tmp_path: Path) -> None:
    series = formats.open_series([weather_file(tmp_path / "a.nc", 10)])[0]
    formats.write(series, tmp_path / "b.zarr", {"title": "copy"})
    back = read([tmp_path / "b.zarr"])
    assert back.values.tobytes() == series.values.tobytes()
    for name in ("time", "lat", "lon"):
        assert back[name].values.tobytes() == series[name].values.tobytes()
    assert back.attrs["variables"]["t2m"]["standard_name"] == "air_temperature"


def test_a_zero_at_the_equator_is_no_missing_coordinate(tmp_path: Path) -> None:
    series = formats.open_series([weather_file(tmp_path / "a.nc", 10)])[0]
    centred = series.assign_coords(lat=("y", np.zeros(12, np.float32), {"units": "degrees_north"}))
    formats.write(centred, tmp_path / "b.zarr", {})
    assert (read([tmp_path / "b.zarr"]).lat.values == 0).all()


def test_other_readers_open_it_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    formats.write(formats.open_series([weather_file(tmp_path / "a.nc", 10)])[0], tmp_path / "b.zarr", {})
    recwarn.clear()
    assert xr.open_zarr(tmp_path / "b.zarr", chunks=None).t2m.shape == (10, 12, 14)
    assert [str(w.message) for w in recwarn] == []


def test_an_old_store_is_replaced_whole_or_left_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    zarr_file(target, 10)
    (target / "left over").write_text("of the old one")
    series = formats.open_series([weather_file(tmp_path / "b.nc", 20)])[0]

    def stop(_: Path) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), atomic.atomic_folder(target, stop, is_store) as temporary:
        (temporary / "half").write_text("")
    assert read([target]).sizes["time"] == 10
    formats.write(series, target, {})
    assert read([target]).sizes["time"] == 20
    assert not (target / "left over").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.nc"], "nothing temporary stays"


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="folder of other things than a Zarr store"):
        formats.check_output(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").write_text("a file")
    with pytest.raises(OutputError, match=r"b\.zarr is a file; expected a folder"):
        formats.check_output(tmp_path / "b.zarr")


def test_the_hash_of_a_store_tells_another_from_it(tmp_path: Path) -> None:
    one = zarr_file(tmp_path / "a.zarr", 10)
    same = zarr_file(tmp_path / "b.zarr", 10)
    other = zarr_file(tmp_path / "c.zarr", 10, values=field(10, seed=1))
    first, again, another = (hashes.sha256(p) for p in (one, same, other))
    assert first == again != another


def test_every_command_takes_a_store(tmp_path: Path, weather: Path, weather_run: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.to_zarr(tmp_path / "air.zarr", consolidated=False)
    made = {}
    for given in (weather, "air.zarr"):
        for out in ("f.nc", "f.zarr"):
            assert pdr("predict", given, "-o", out, "-m", weather_run).code == 0
            made[str(given), out] = formats.open_series([Path(out)])[0].values
    first, *others = made.values()
    assert all(np.array_equal(first, other) for other in others)
    scores = [pdr("evaluate", given, "-m", weather_run).out for given in (weather, "air.zarr")]
    assert scores[0].replace(str(weather), "air.zarr") == scores[1]
    shown = pdr("inspect", "air.zarr")
    assert (shown.code, "format       zarr" in shown.out, "160, 2020-01-01" in shown.out) == (0, True, True)


def test_a_model_is_trained_on_a_store(tmp_path: Path, weather: Path, weather_run: Path) -> None:
    from tests.conftest import tiny_settings

    with xr.open_dataset(weather) as data:
        data.to_zarr(tmp_path / "air.zarr", consolidated=False)
    done = pdr(
        "train", "--preset", "demo", "--data", "air.zarr", "-o", "run", "--steps", "3", "-q", *tiny_settings()
    )  # fmt: skip
    assert done.code == 0, done.err
    for model, name in ((weather_run, "a.nc"), ("run", "b.nc")):
        assert pdr("predict", weather, "-o", name, "-m", model).code == 0
    with xr.open_dataset("a.nc") as a, xr.open_dataset("b.nc") as b:
        assert np.array_equal(a.t2m.values, b.t2m.values), "the same data and seed give the same weights"


def test_a_store_of_another_kind_than_the_presets_is_refused(tmp_path: Path) -> None:
    zarr_file(tmp_path / "a.zarr")
    result = pdr("train", "--preset", "traffic-small", "--data", "a.zarr", "--dry-run")
    assert (result.code, "a.zarr holds weather (units 'K'); expected traffic" in result.last) == (65, True)


def test_the_output_may_not_be_the_input(tmp_path: Path, weather_run: Path) -> None:
    zarr_file(tmp_path / "a.zarr")
    result = pdr("predict", "a.zarr", "-o", "a.zarr", "-m", weather_run)
    assert (result.code, "also an input" in result.last) == (2, True)
