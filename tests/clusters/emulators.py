"""Object stores on this machine, one for each kind of URL: what its clients need to be told, while it runs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import wait_for
from tests.faults.proxy import object_store

# Gcsfs ends what it sends with a line feed. The emulator's parser would take a carriage return before it, the last byte
# of one file in 256, for half of that end.
_GOOGLE = """
import sys
from email.parser import BytesParser
from gcp_storage_emulator import server

class Parser(BytesParser):
    def parsebytes(self, text, headersonly=False):
        content, _, end = text.rpartition(b"\\n--")
        return super().parsebytes(content + b"\\r\\n--" + end, headersonly)

server.BytesParser = Parser
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).start()
input()
"""


@dataclass(frozen=True)
class Emulator:
    """One of them.

    Attributes
    ----------
    scheme
        What its URLs begin with.
    environment
        What tells clients to go there.
    options
        What fsspec is told besides.
    """

    scheme: str
    environment: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def _s3() -> Iterator[Emulator]:
    pytest.importorskip("s3fs")
    with object_store() as store:
        yield Emulator("s3", store.environment)


@contextmanager
def _google() -> Iterator[Emulator]:
    pytest.importorskip("gcp_storage_emulator")
    options = {"token": "anon"}
    with _served(sys.executable, "-c", _GOOGLE, "{port}") as port:
        environment = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "FSSPEC_GS": json.dumps(options),
            # The emulator speaks HTTP alone: gcsfs would ask by gRPC, for a minute, what kind of bucket it has. Read
            # when gcsfs is imported.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
        yield Emulator("gs", environment, options)


@contextmanager
def _azure() -> Iterator[Emulator]:
    pytest.importorskip("adlfs")
    server = shutil.which("azurite-blob")
    if server is None:
        pytest.skip("no azurite-blob found: npm install --global azurite")
    account, key = "emolib", b64encode(secrets.token_bytes(64)).decode()
    # It knows fewer versions of the protocol than the clients are new.
    options = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
    environment = {"AZURITE_ACCOUNTS": f"{account}:{key}"}
    with _served(server, *options, "--blobHost", "127.0.0.1", "--blobPort", "{port}", environment=environment) as port:
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": account,
            "AccountKey": key,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{account}",
        }
        told = ";".join(f"{name}={value}" for name, value in parts.items())
        yield Emulator("az", {"AZURE_STORAGE_CONNECTION_STRING": told})


@contextmanager
def _served(*command: str, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a server on a free port, which its command line says as {port}, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [argument.format(port=port) for argument in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        wait_for(lambda: server.poll() is not None or _answers(port), f"an answer of {command[0]}", poll_s=0.1)
        assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
        yield port
    finally:
        server.kill()
        server.communicate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


EMULATORS = {"s3": _s3, "gs": _google, "az": _azure}
