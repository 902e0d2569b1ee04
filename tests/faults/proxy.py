"""A proxy before an object store that fails as long as it is told to, and counts what it failed."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from emolib.storage import resolve

Fault = Literal["500", "503", "hangs", "breaks off"]

_SERVER = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
input()
"""
_ERROR = "<Error><Code>{code}</Code><Message>injected</Message></Error>"
_NAMES = {"400": "ExpiredToken", "500": "InternalError", "503": "ServiceUnavailable"}
_NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "server", "date"}


class Store:
    """Moto's server in a process of its own, and the proxy that the jobs are given for it.

    Attributes
    ----------
    fault
        How each request ends for now; None: as the store answers it.
    failed
        How many requests have ended in each of these ways.
    expired
        Session tokens that are no longer good.
    """

    def __init__(self, behind: tuple[str, int]) -> None:
        self.fault: Fault | None = None
        self.failed: Counter[str] = Counter()
        self.expired: set[str] = set()
        self.mended = threading.Event()
        self._behind = behind
        self._asked, self._fail_after = 0, 0
        self._until: int | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the store is for its clients."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What tells clients to go there; who waits for an answer gives up after ten seconds."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FSSPEC_S3": '{"config_kwargs": {"read_timeout": 10, "connect_timeout": 10}}',
        }

    def break_down(self, fault: Fault, *, after: int = 0, until_failed: int | None = None) -> None:
        """Fail from so many requests on, until so many have failed, or until `mend`."""
        with self._lock:
            self.mended.clear()
            self.fault, self._asked, self._fail_after = fault, 0, after
            self._until = None if until_failed is None else sum(self.failed.values()) + until_failed

    def mend(self) -> None:
        """Work again."""
        self.fault = None
        self.mended.set()

    def close(self) -> None:
        """Stop serving."""
        self.mend()
        self._server.shutdown()
        self._server.server_close()

    def _fails(self) -> Fault | None:
        with self._lock:
            self._asked += 1
            fault = self.fault
            if fault is None or self._asked <= self._fail_after:
                return None
            self.failed[fault] += 1
            if self._until is not None and sum(self.failed.values()) >= self._until:
                self.mend()
            return fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # who asked waits no more
                    super().handle()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = store._fails()
                if fault in ("hangs", "breaks off"):
                    if fault == "hangs":
                        store.mended.wait(60)
                    self.close_connection = True
                elif self.headers.get("x-amz-security-token") in store.expired:
                    store.failed["expired"] += 1
                    self.refuse("400")
                elif fault is not None:
                    self.refuse(fault)
                else:
                    self.pass_on(body)

            def refuse(self, status: str) -> None:
                error = _ERROR.format(code=_NAMES[status])
                self.reply(int(status), {"Content-Type": "application/xml"}, error)

            def pass_on(self, body: bytes) -> None:
                behind = http.client.HTTPConnection(*store._behind, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                behind.request(self.command, self.path, body, headers)
                answer = behind.getresponse()
                data = answer.read()
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in _NOT_PASSED_ON}
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.reply(answer.status, kept, data, length)
                behind.close()

            def reply(self, status: int, headers: dict[str, str], data: bytes | str, length: str | None = None) -> None:
                data = data.encode() if isinstance(data, str) else data
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        return Handler


@contextmanager
def object_store() -> Iterator[Store]:
    """Start moto's server and the proxy before it, and end both."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    host, port = server.stdout.readline().split()
    store = Store((host, int(port)))
    try:
        yield store
    finally:
        store.close()
        server.kill()
        server.communicate()


def put(folder: Path, url: str) -> None:
    """Copy a folder into the store."""
    target = resolve(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.fs.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
    target.fs.invalidate_cache()
