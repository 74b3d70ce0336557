"""URLs of inputs: recognised among paths, and shown without what would open them to others."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pdr_cli.errors import InputNotFoundError, UsageError

READ = ("https", "http", "s3", "gs")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(\S+)")  # `Path` turns // into /
_WITHIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+[^\s'\"]+")


class RemotePath(type(Path())):  # type: ignore[misc]
    """A URL among the paths of inputs: neither a file nor a folder of this machine.

    As text it has neither user name, password nor query: these may hold credentials, and texts end in logs and forecasts.

    Attributes:
        url: as it was given.
    """

    url: str = ""

    def __new__(cls, url: str) -> RemotePath:
        """See the class."""
        made: RemotePath = super().__new__(cls, shown(url))
        made.url = url
        return made

    def __init__(self, url: str) -> None:
        if sys.version_info >= (3, 12):
            super().__init__(shown(url))

    def with_segments(self, *parts: str | Path) -> Path:
        """A path that is made of this one is not a URL."""
        return Path(*parts)

    def __str__(self) -> str:
        return shown(self.url) if self.url else super().__str__()  # Python 3.11 makes parents without a URL

    def __fspath__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def is_file(self, **_: bool) -> bool:
        """No."""
        return False

    def is_dir(self, **_: bool) -> bool:
        """No."""
        return False


def remote(argument: str) -> RemotePath | None:
    """The URL that an argument names, also one whose slashes `Path` has joined; None for a path of this machine.

    Raises:
        InputNotFoundError: a scheme that is not read, or several objects.
    """
    match = _URL.fullmatch(argument)
    if match is None:
        return None
    scheme, rest = match[1].lower(), match[2]
    if scheme not in READ:
        found = f"{shown(argument)} is a URL of the scheme {scheme}"
        raise InputNotFoundError(found, f"a path, or a URL of {', '.join(READ)}", "download it first")
    if scheme in ("s3", "gs") and set("*?[") & set(rest):
        found = f"{shown(argument)} names several objects"
        raise InputNotFoundError(found, way_out="name each file or store by a URL of its own")
    return RemotePath(f"{scheme}://{rest}")


def shown(url: str) -> str:
    """A URL without user name, password, query and fragment."""
    match = _URL.fullmatch(url)
    if match is None:
        return url
    parts = urlsplit(f"{match[1]}://{match[2]}")
    return f"{parts.scheme}://{_host(parts)}{parts.path}"


def without_credentials(text: str) -> str:
    """A text, such as a command line, in which URLs are shown as by `shown`."""
    return _WITHIN.sub(lambda found: shown(found[0]), text)


def has_credentials(url: str) -> bool:
    """Whether a URL has a part that is not shown."""
    return _URL.fullmatch(url) is not None and shown(url) != urlsplit(url).geturl()


def refuse_output(path: Path | str) -> None:
    """Refuse a URL as an output.

    Raises:
        UsageError: it is one.
    """
    match = _URL.fullmatch(str(path))
    if match is not None and len(match[1]) > 1 and not Path(path).parent.exists():
        found = f"output {shown(str(path))} is a URL; outputs are written to this machine"
        raise UsageError(found, way_out="write to a file and copy that, for example with aws s3 cp or rclone copyto")


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
