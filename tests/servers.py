"""Servers on this machine for tests of URLs: plain HTTP with ranges, and as much of S3 as reading needs."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Server:
    """A server of the files below a folder.

    Args:
        url: its address.
        requests: (method, path with query, range, authorisation) of each request.
        failures: statuses that the next requests get in place of an answer; 0: the connection is cut in the body.
        ranges: whether it gives parts of files.
        authorization: header that it wants; "": none.
    """

    root: Path
    url: str = ""
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    ranges: bool = True
    authorization: str = ""


@contextlib.contextmanager
def serving(root: Path, *, bucket: str = "") -> Iterator[Server]:
    """Serve a folder; with `bucket` as an S3 service that has it as this bucket."""
    server = Server(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # header and body leave one by one, and the second would wait 40 ms

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, server, bucket)

        do_HEAD = do_GET  # noqa: N815 - named by http.server

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, server: Server, bucket: str) -> None:
    span, given = handler.headers.get("Range", ""), handler.headers.get("Authorization", "")
    server.requests.append((handler.command, handler.path, span, given))
    failure = server.failures.pop(0) if server.failures else None
    if failure:
        return _send(handler, failure, b"try again")
    if server.authorization and given != server.authorization:
        return _send(handler, 403, b"forbidden")
    parts = urlsplit(handler.path)
    name = unquote(parts.path).removeprefix(f"/{bucket}").strip("/")
    query = parse_qs(parts.query)
    if bucket and "list-type" in query:
        return _send(handler, 200, _listing(server.root, query.get("prefix", [""])[0]))
    if not (server.root / name).is_file():
        return _send(handler, 404, b"not found")
    content = (server.root / name).read_bytes()
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", span) if server.ranges else None
    if match is None:
        return _send(handler, 200, content, cut=failure == 0)
    first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    about = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return _send(handler, 206, content[first : last + 1], about, cut=failure == 0)


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, about: dict[str, str] | None = None, cut: bool = False
) -> None:
    handler.send_response(status)
    always = {"Content-Length": str(len(body)), "ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    for name, value in (always | (about or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body[: len(body) // 2] if cut else body)
    if cut:
        handler.close_connection = True


def _listing(root: Path, prefix: str) -> bytes:
    """As ListObjectsV2 with the delimiter / answers."""
    folder = root / prefix
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    folders = (f"<CommonPrefixes><Prefix>{prefix}{p.name}/</Prefix></CommonPrefixes>" for p in inside if p.is_dir())
    files = (
        f"<Contents><Key>{prefix}{p.name}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>"
        f"<ETag>1</ETag><Size>{p.stat().st_size}</Size></Contents>"
        for p in inside
        if p.is_file()
    )
    body = "".join([*files, *folders])
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{body}</ListBucketResult>".encode()
