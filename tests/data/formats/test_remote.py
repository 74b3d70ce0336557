"""URLs in: Zarr where it is, files downloaded, failures of servers, and nothing that gives credentials away."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions, remote
from pdr_cli.errors import DataError, InputNotFoundError, StorageError
from pdr_cli.system import urls
from tests.builders import field, weather_file
from tests.cli import pdr
from tests.servers import Server, serving

pytest.importorskip("obstore")
BUCKET = "bucket"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short retries, no credentials of this machine, nothing remembered of servers before."""
    from pdr_cli.data.formats import objects

    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(
        objects, "RETRIES", {"max_retries": 2, "retry_timeout": timedelta(seconds=5), "backoff": backoff}
    )
    for name in [n for n in os.environ if n.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    yield
    remote._is_store.cache_clear()
    remote._copy.cache_clear()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "data").mkdir(exist_ok=True)
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "data").mkdir(exist_ok=True)
    with serving(tmp_path / "data", bucket=BUCKET) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server


def zarr_store(path: Path, steps: int = 160, *, version: int = 3, consolidated: bool = True, group: str = "") -> Path:
    """A Zarr store of the same fields as `weather_file`, in chunks of 20 steps."""
    path.parent.mkdir(exist_ok=True)
    plain = weather_file(path.with_suffix(".plain.nc"), steps)
    with xr.open_dataset(plain) as dataset:
        chunks = {"t2m": {"chunks": (20, 12, 14)}}
        dataset.to_zarr(path, zarr_format=version, consolidated=consolidated, encoding=chunks, group=group or None)  # type: ignore[call-overload]
    plain.unlink()
    return path


def values(url: str, group: str = "") -> np.ndarray:
    (series,) = formats.open_series(formats.find_inputs([url]), ReadOptions(group=group))
    return np.asarray(series.values[:, 0])


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_is_read_over_http_chunk_by_chunk(http: Server, version: int) -> None:
    zarr_store(http.root / "a.zarr", version=version)
    (series,) = formats.open_series(formats.find_inputs([f"{http.url}/a.zarr"]))
    before = len(http.requests)
    frame = series.isel(time=30, channel=0).values
    assert np.array_equal(frame, field(160)[30])
    assert len(http.requests) - before == 1, "the one chunk of that frame"
    assert np.array_equal(series.values[:, 0], field(160))


def test_a_store_without_consolidated_metadata_is_refused_over_http(http: Server) -> None:
    zarr_store(http.root / "a.zarr", consolidated=False)
    result = pdr("inspect", f"{http.url}/a.zarr")
    assert result.code == 65
    assert "has no consolidated metadata, without which a Zarr store cannot be read over http" in result.last


@pytest.mark.parametrize("consolidated", [False, True])
def test_a_zarr_store_is_read_from_s3_without_credentials(s3: Server, consolidated: bool) -> None:
    zarr_store(s3.root / "era5" / "a.zarr", consolidated=consolidated)
    assert np.array_equal(values(f"s3://{BUCKET}/era5/a.zarr"), field(160))
    assert {authorization for *_, authorization in s3.requests} == {""}


def test_requests_to_s3_are_signed_where_credentials_are_set(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr_store(s3.root / "a.zarr")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    assert np.array_equal(values(f"s3://{BUCKET}/a.zarr"), field(160))
    assert all(a.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") for *_, a in s3.requests)


def test_the_only_group_with_fields_is_found_in_a_bucket(s3: Server) -> None:
    zarr_store(s3.root / "a.zarr", group="inside", consolidated=False)
    assert np.array_equal(values(f"s3://{BUCKET}/a.zarr"), field(160))
    assert np.array_equal(values(f"s3://{BUCKET}/a.zarr", "/inside"), field(160))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_netcdf_file_is_downloaded_once(http: Server, monkeypatch: pytest.MonkeyPatch, ranges: bool) -> None:
    from pdr_cli.data.formats import objects

    monkeypatch.setattr(objects, "PART", 2**16)
    path, http.ranges = weather_file(http.root / "a.nc"), ranges
    url = f"{http.url}/a.nc"
    assert np.array_equal(values(url), field(160))
    parts = -(-path.stat().st_size // 2**16)
    assert len(http.requests) == (parts if ranges else 2)
    assert np.array_equal(values(url), field(160))
    assert len(http.requests) == (parts if ranges else 2), "the copy is used again"


def test_a_netcdf_file_is_read_from_s3(s3: Server) -> None:
    weather_file(s3.root / "a.nc", 20)
    assert np.array_equal(values(f"s3://{BUCKET}/a.nc"), field(20))


def test_a_compressed_file_is_read_from_a_url(http: Server) -> None:
    plain = weather_file(http.root / "a.nc", 20)
    (http.root / "a.nc.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(values(f"{http.url}/a.nc.gz"), field(20))


@pytest.mark.parametrize("failures", [[503], [429], [500, 502], [0]], ids=str)
def test_failures_of_a_server_are_tried_again(http: Server, failures: list[int]) -> None:
    weather_file(http.root / "a.nc", 20)
    zarr_store(http.root / "a.zarr", 20)
    for name in ("a.nc", "a.zarr"):
        http.failures[:] = failures
        assert np.array_equal(values(f"{http.url}/{name}"), field(20))
        assert not http.failures


def test_a_server_that_keeps_failing_is_an_io_error(http: Server) -> None:
    weather_file(http.root / "a.nc", 20)
    http.failures[:] = [503] * 20
    result = pdr("inspect", f"{http.url}/a.nc")
    assert result.code == 74
    assert (
        f"{http.url}/a.nc: the server answers 503 Service Unavailable; check the address and the network" in result.last
    )
    assert len(http.requests) == 3, "the first and two more"


def test_a_server_that_fails_while_chunks_are_read_is_an_io_error(http: Server) -> None:
    zarr_store(http.root / "a.zarr")
    (series,) = formats.open_series(formats.find_inputs([f"{http.url}/a.zarr"]))
    http.failures[:] = [503] * 20
    with pytest.raises(StorageError, match="the server answers 503"):
        series.load()


def test_an_address_that_does_not_answer_is_an_io_error() -> None:
    result = pdr("inspect", "http://127.0.0.1:9/a.nc")
    assert (result.code, "http://127.0.0.1:9/a.nc: the server cannot be reached" in result.last) == (74, True)


def test_an_object_that_does_not_exist_is_not_found(http: Server) -> None:
    for name in ("a.nc", "a.zarr"):
        result = pdr("inspect", f"{http.url}/{name}")
        assert result.code == 66
        assert f"{http.url}/{name}: no such object (404)" in result.last


def test_a_server_that_wants_credentials_says_how_to_give_them(http: Server, s3: Server) -> None:
    http.authorization = s3.authorization = "something else"
    result = pdr("inspect", f"s3://{BUCKET}/a.nc")
    assert result.code == 66
    assert "the server asks for credentials, or there is no such object (403); set AWS_ACCESS_KEY_ID and" in result.last
    assert "https://USER:PASSWORD@HOST/PATH" in pdr("inspect", f"{http.url}/a.nc").last


def test_a_user_and_password_are_sent_and_not_shown(http: Server) -> None:
    weather_file(http.root / "a.nc", 20)
    http.authorization = "Basic bWU6c2VjcmV0IQ=="  # base64 of me:secret!
    url = http.url.replace("http://", "http://me:secret%21@") + "/a.nc"
    result = pdr("inspect", url)
    assert result.code == 0, result.err
    assert "secret" not in result.out + result.err
    assert f"{http.url}/a.nc" in result.out


def test_signatures_reach_the_server_and_nothing_else(
    http: Server, tmp_path: Path, weather: Path, weather_run: Path
) -> None:
    (http.root / "a.nc").write_bytes(weather.read_bytes())
    url = f"{http.url}/a.nc?X-Amz-Signature=verysecret&token=also%20secret"
    result = pdr("predict", url, "-m", weather_run, "-o", tmp_path / "fc.nc", "--log-json")
    assert result.code == 0, result.err
    assert all("X-Amz-Signature=verysecret" in path for _, path, *_ in http.requests)
    with xr.open_dataset(tmp_path / "fc.nc") as forecast:
        written = json.dumps({k: str(v) for k, v in forecast.attrs.items()})
        assert f"predict {http.url}/a.nc" in forecast.history
        assert forecast.comment == "from a.nc"
    scored = pdr("evaluate", url, "-m", weather_run, "-o", tmp_path / "scores.json")
    assert scored.code == 0, scored.err
    broken = pdr("predict", url.replace("a.nc", "b.nc"), "-m", weather_run, "-o", tmp_path / "no.nc")
    assert broken.code == 66
    everything = "".join(r.out + r.err for r in (result, scored, broken)) + written
    assert "secret" not in everything + (tmp_path / "scores.json").read_text()


def test_a_forecast_from_a_url_is_that_from_the_file(
    http: Server, tmp_path: Path, weather: Path, weather_run: Path
) -> None:
    (http.root / "a.nc").write_bytes(weather.read_bytes())
    url, out = f"{http.url}/a.nc", tmp_path / "b.nc"
    assert pdr("predict", weather, "-m", weather_run, "-o", tmp_path / "a.nc").code == 0
    assert pdr("predict", url, "-m", weather_run, "-o", out, "--wait-input", 1).code == 0
    with xr.open_dataset(tmp_path / "a.nc") as one, xr.open_dataset(out) as other:
        assert one.pdr_request_id == other.pdr_request_id
        assert one.pdr_input_sha256 == other.pdr_input_sha256
        assert np.array_equal(one.t2m, other.t2m)
    assert "up to date" in pdr("predict", url, "-m", weather_run, "-o", out, "--skip-existing").out


def test_a_model_is_trained_on_a_url(http: Server, tmp_path: Path) -> None:
    zarr_store(http.root / "a.zarr")
    url, run = f"{http.url}/a.zarr", tmp_path / "run"
    result = pdr("train", "--preset", "weather-small", "--data", url, "--steps", 2, "-o", run)
    assert result.code == 0, result.err
    assert url in (run / "config.toml").read_text()
    assert pdr("train", "--resume", "-o", run, "--steps", 3).code == 0
    secret = pdr("train", "--preset", "weather-small", "--data", f"{url}?sig=x", "--steps", 2, "-o", tmp_path / "b")
    assert secret.code == 2
    assert "has a password or a query, which the run would save; set credentials in the environment" in secret.last


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    result = pdr("inspect", "https://example.org/a.nc")
    assert result.code == 65
    assert "https://example.org/a.nc is a URL, which is read with obstore, and that is not installed" in result.last
    assert "pip install 'pdr-cli[remote]', or download it first" in result.last


@pytest.mark.parametrize("url", ["ftp://host/a.nc", "az://container/a.zarr", "file:///a.nc"])
def test_other_schemes_are_refused_with_those_that_are_read(url: str) -> None:
    with pytest.raises(
        InputNotFoundError, match=r"is a URL of the scheme \w+; expected a path, or a URL of https, http,"
    ):
        formats.find_inputs([url])


def test_a_url_names_one_object(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="names several objects; name each file or store by a URL of its own"):
        formats.find_inputs(["gs://bucket/*.nc"])


def test_a_url_is_recognised_after_path_has_joined_its_slashes() -> None:
    for argument in ("https://example.org/b/a.nc", Path("https://example.org/b/a.nc")):
        (path,) = formats.find_inputs([argument])
        assert str(path) == "https://example.org/b/a.nc"
        assert (path.name, path.suffix, path.is_file(), path.is_dir()) == ("a.nc", ".nc", False, False)
        assert str(path.parent) == "https:/example.org/b"
    assert len(formats.find_inputs(["https://h/a.nc?x=1", "https://h/a.nc?x=2", "https://h/a.nc?x=1"])) == 2


def test_a_page_in_place_of_data_is_named(http: Server) -> None:
    (http.root / "a.nc").write_text("<html>please log in</html>")
    with pytest.raises(DataError) as raised:
        formats.open_series(formats.find_inputs([f"{http.url}/a.nc"]))
    assert f"{http.url}/a.nc is a web page, which is not read" in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "a.nc", "-o", "s3://bucket/out.zarr"),
        ("predict", "a.nc", "-o", "s3://key:secret@bucket/out.nc?sig=secret"),
        ("predict", "a.nc", "-o", "b.nc", "--preview", "https://host/a.png"),
        ("evaluate", "a.nc", "-o", "gs://bucket/scores.json"),
        ("train", "--preset", "weather-small", "--data", "a.nc", "-o", "s3://bucket/run"),
        ("sample", "weather", "-o", "s3://bucket/a.nc"),
    ],
    ids=lambda c: f"{c[0]} {c[-1]}",
)
def test_outputs_are_never_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weather_run: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PDR_MODEL", str(weather_run))
    weather_file(Path("a.nc"))
    result = pdr(*command)
    assert result.code == 2, result.err
    assert "is a URL; outputs are written to this machine; write to a file and copy that" in result.last
    assert "mkdir" not in result.last
    assert "secret" not in result.err
    assert not [p for p in tmp_path.iterdir() if ":" in p.name]


def test_urls_in_a_command_line_lose_their_credentials() -> None:
    text = "pdr predict 'https://me:pw@host/a.nc?sig=1' -o b.nc --var t=u"
    assert urls.without_credentials(text) == "pdr predict 'https://host/a.nc' -o b.nc --var t=u"
