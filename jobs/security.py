"""Certificates: where they lie, and what Dask is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from distributed.security import Security

from emolib.errors import SettingsError
from jobs.specs import TLS_FOLDER

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
_OWN = {"cert": CERTIFICATE, "key": KEY}
_ROLES = ("client", "scheduler", "worker")


def security(tls: str | Literal[False] | None) -> Security | None:
    """Return what Dask needs to encrypt its traffic and to refuse strangers; None where `tls` is False.

    Parameters
    ----------
    tls
        Folder of certificates, None: the usual one.

    Raises
    ------
    SettingsError
        If they are not there.
    """
    if tls is False:
        return None
    files = _files(tls)
    ends = {f"tls_{role}_{what}": files[name] for role in _ROLES for what, name in _OWN.items()}
    return Security(tls_ca_file=files[CA], require_encryption=True, **ends)


def security_settings(tls: str | Literal[False] | None) -> dict[str, Any]:
    """Return the same as settings of Dask, for processes that are started on other machines."""
    if tls is False:
        return {}
    files = _files(tls)
    ends = {f"distributed.comm.tls.{role}.{what}": files[name] for role in _ROLES for what, name in _OWN.items()}
    return {"distributed.comm.tls.ca-file": files[CA], "distributed.comm.require-encryption": True, **ends}


def worker_arguments(tls: str | Literal[False] | None) -> list[str]:
    """Return the same as arguments of ``dask worker``."""
    if tls is False:
        return []
    files = _files(tls)
    return ["--tls-ca-file", files[CA], "--tls-cert", files[CERTIFICATE], "--tls-key", files[KEY]]


def _files(tls: str | None) -> dict[str, str]:
    folder = Path(tls or TLS_FOLDER).expanduser().absolute()
    files = {name: str(folder / name) for name in (CA, CERTIFICATE, KEY)}
    if missing := [path for path in files.values() if not Path(path).is_file()]:
        raise SettingsError(
            f"no {missing[0]} found, expected certificates for what leaves this machine: make them with "
            "`emolib certs`, or give another folder as tls in the cluster file"
        )
    return files
