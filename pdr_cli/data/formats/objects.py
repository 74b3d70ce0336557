"""Objects behind URLs, through obstore: one read in parts, and stores of zarr. Failures are errors of this program."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import GCSStore, HTTPStore, S3Store
from zarr.storage import ObjectStore

from pdr_cli.errors import DataError, InputNotFoundError, StorageError
from pdr_cli.system.urls import RemotePath

PART = 2**24  # bytes that are downloaded at once
WHOLE_TIMEOUT = "6h"  # for a file that is not given in parts
CLIENT: dict[str, Any] = {"connect_timeout": "10s", "timeout": "60s", "allow_http": True}
RETRIES: dict[str, Any] = {
    "max_retries": 6,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=20), "base": 2},
}
# Where one of these is set, requests are signed; otherwise they are anonymous, as for public data.
AWS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
       "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE")  # fmt: skip
GOOGLE = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SKIP_SIGNATURE",
)
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS in the environment",
}
STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")


class Objects(ObjectStore):
    """The objects below a URL as a store of zarr, read only."""

    path: RemotePath

    async def get(self, key: Any, prototype: Any, byte_range: Any = None) -> Any:
        """See `zarr.abc.store.Store`."""
        with refusals(self.path):
            return await super().get(key, prototype, byte_range)

    def list_dir(self, prefix: str) -> Any:
        """See `zarr.abc.store.Store`."""
        return self._listed(super().list_dir(prefix))

    async def _listed(self, names: Any) -> Any:
        with refusals(self.path):
            async for name in names:
                yield name


def store(path: RemotePath) -> Objects:
    """The objects below a URL."""
    made = Objects(_connected(path), read_only=True)
    made.path = path
    return made


def content(path: RemotePath, name: str) -> bytes | None:
    """The object of a name below a URL; None where there is none."""
    try:
        with refusals(path):
            return bytes(obstore.get(_connected(path), name).bytes())
    except InputNotFoundError:
        return None


class Download:
    """The object at a URL, to be written to a file part by part, so that a failure costs one part.

    Args:
        path: the URL.

    Attributes:
        size: bytes of the object.

    Raises:
        InputNotFoundError: no such object, or no permission.
        StorageError: the server cannot be reached, or fails again and again.
        DataError: the object changed meanwhile.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        with refusals(path):
            try:
                self._first = obstore.get(_connected(path), "", options={"range": (0, PART)})
            except exceptions.NotSupportedError:  # a server that gives no parts
                self._first = obstore.get(_connected(path, {"timeout": WHOLE_TIMEOUT}), "")
        self.size = int(self._first.meta["size"])

    def write(self, target: BinaryIO) -> None:
        """Write the object to a file."""
        with refusals(self.path):
            for block in self._first.stream(min_chunk_size=2**20):
                target.write(block)
            connected, tag = _connected(self.path), self._first.meta["e_tag"]
            for start in range(target.tell(), self.size, PART):
                options: Any = {"range": (start, min(start + PART, self.size)), "if_match": tag}
                target.write(obstore.get(connected, "", options=options).bytes())


@contextlib.contextmanager
def refusals(path: RemotePath) -> Iterator[None]:
    """Turn the failures of obstore in the block into errors that name the URL, without its credentials."""
    try:
        yield
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such object (404)", way_out="check its name") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        scheme = urlsplit(path.url).scheme
        way_out = CREDENTIALS.get(scheme, "give them in the URL, https://USER:PASSWORD@HOST/PATH, or take a signed URL")
        found = f"{path}: the server asks for credentials, or there is no such object (403)"
        raise InputNotFoundError(found, way_out=way_out) from None
    except exceptions.PreconditionError:
        raise DataError(f"{path} changed while it was read", way_out="start again when it is complete") from None
    except exceptions.BaseError as error:
        status = STATUS.search(str(error))
        what = f"the server answers {status[1].strip()}" if status else "the server cannot be reached"
        way_out = "check the address and the network, and try again"
        if urlsplit(path.url).scheme == "s3":
            way_out += "; AWS_REGION is the bucket's region, AWS_ENDPOINT_URL the address of a service other than AWS"
        raise StorageError(f"{path}: {what}", way_out=way_out) from None


def _connected(path: RemotePath, client: dict[str, Any] | None = None) -> Any:
    """The obstore that a URL is the root of."""
    parts = urlsplit(path.url)
    common: dict[str, Any] = {"client_options": CLIENT | (client or {}), "retry_config": RETRIES}
    if parts.scheme in ("http", "https"):
        return _of_http(path.url, common)
    prefix = unquote(parts.path).strip("/")
    if parts.scheme == "s3":
        return S3Store(parts.netloc, prefix=prefix, **_anonymous(AWS), **common)
    return GCSStore(parts.netloc, prefix=prefix, **_anonymous(GOOGLE), **common)


def _of_http(url: str, common: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        client = common["client_options"] | {"default_headers": {"Authorization": f"Basic {token}"}}
        common = common | {"client_options": client}
    return HTTPStore.from_url(parts._replace(netloc=host, fragment="").geturl(), **common)


def _anonymous(variables: tuple[str, ...]) -> dict[str, Any]:
    return {} if any(v in os.environ for v in variables) else {"skip_signature": True}
