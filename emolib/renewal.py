"""S3 with temporary credentials: read anew where a file that holds them has changed.

What botocore fetches itself (roles, web identities, SSO, ``credential_process``) it also renews. But keys that lie in
the shared credentials file it reads once: who renews them there would renew them for jobs that begin later.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3fs import S3FileSystem
from upath import UPath
from upath.implementations.cloud import S3Path

_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}


class RenewingS3FileSystem(S3FileSystem):
    """fsspec's S3, with a new session whenever the files of its credentials are others than those it has read."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._read: object = None
        self._renewing = asyncio.Lock()

    async def set_session(self, refresh: bool = False, kwargs: Mapping[str, Any] | None = None) -> Any:
        """Connect; every request begins with this, and waits where another one connects anew."""
        async with self._renewing:
            there = [_state(os.environ.get(name, place)) for name, place in _FILES.items()]
            renewed = self._read is not None and there != self._read
            session = await super().set_session(refresh=refresh or renewed, kwargs=kwargs or {})
            self._read = there
        return session


class RenewingS3Path(S3Path):
    """A place in S3 that is reached so. The registries of fsspec and of UPath are everybody's, and stay as they are."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> RenewingS3Path:
        """Make one; universal_pathlib's own would look for its class in the registry."""
        return object.__new__(cls)

    @property
    def fs(self) -> RenewingS3FileSystem:
        """Its file system: one for all places with the same options."""
        return RenewingS3FileSystem(**self.storage_options)


def renewing(place: UPath) -> RenewingS3Path:
    """Return a place in S3 as one whose credentials are renewed."""
    return place if isinstance(place, RenewingS3Path) else RenewingS3Path(str(place), **place.storage_options)


def _state(place: str) -> tuple[int, int, int] | None:
    try:
        found = Path(place).expanduser().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
