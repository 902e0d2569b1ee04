"""What the clients of object stores raise: who lets nobody in any more, who can't be reached, who says no.

Each client belongs to a package that comes with an extra: its errors are known by their packages and names, and by what
they carry.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from emolib.errors import EmolibError, OutputError

_CLIENTS = {"aiobotocore", "aiohttp", "adlfs", "azure", "botocore", "gcsfs", "google", "requests", "s3fs", "urllib3"}
# What stores say where credentials are no longer good; of a question for an object's head S3 has a bare 400.
_REFUSED = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired"),  # S3
    *("AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo"),  # Azure
}
_HEADS = {"HeadObject", "HeadBucket"}
# What clients raise where none can be had.
_NONE_TO_BE_HAD = {
    "ClientAuthenticationError",  # azure.core
    "CredentialRetrievalError",  # botocore, as all that follow but the last two
    "NoCredentialsError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",  # google.auth
    "RefreshError",
}
# Of a write: what every other one would meet as well. All else may pass.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# What they raise, or what that is a kind of, where nobody answers, or not to the end.
_NO_ANSWER = {
    *("ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError"),  # Python, botocore, requests
    *("HTTPClientError", "IncompleteReadError"),  # botocore; azure.core has the latter, too
    *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
    *("ServiceRequestError", "ServiceResponseError"),  # azure.core
    "TransportError",  # google.auth
    "ChecksumError",  # gcsfs
}
_NOT_TRUSTED = {"SSLError", "ClientSSLError"}  # a kind of the former, which no waiting mends
# Of HTTP.
_UNAUTHORIZED, _FORBIDDEN, _REQUEST_TIMEOUT, _TOO_MANY, _SERVERS_FAULT = 401, 403, 408, 429, 500


def locked_out(error: BaseException) -> OutputError | None:
    """Return what stops a job whose credentials have expired, or can't be had any more; None for any other error.

    Nothing else can be reached in that store either; one object that may not be read is another matter.
    """
    for cause in _causes(error):
        if _is_for_want_of_credentials(cause):
            said = " ".join(str(cause).split())
            return OutputError(
                f"no credentials found that the object store takes ({said}), expected valid ones: renew them, then run "
                "the same command again; what is done stays done"
            )
    return None


def no_room(error: BaseException, place: object) -> OutputError | None:
    """Return what stops a job that can write nothing more to a place; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
        return None
    return OutputError(
        f"{error.strerror} in {place}, expected room to write to: make some, then run the same command again; what is "
        "done stays done"
    )


def out_of_reach(error: BaseException) -> bool:
    """Return whether an error means that a store, or the network before it, does not answer, or has a fault of its own.

    Examples
    --------
    >>> out_of_reach(ConnectionResetError()), out_of_reach(FileNotFoundError())
    (True, False)
    """
    return any(_does_not_answer(cause) for cause in _causes(error))


def forbidden(error: BaseException) -> bool:
    """Return whether a store knows who asks, and says no: S3's client has Python's own error for that."""
    return any(
        _status(cause) == _FORBIDDEN or (type(cause) is OSError and str(cause).startswith("Forbidden: "))  # gcsfs
        for cause in _causes(error)
    )


def is_the_stores(error: BaseException) -> bool:
    """Return whether an error is the store's, and says nothing of the data that lies there."""
    return locked_out(error) is not None or out_of_reach(error) or forbidden(error)


def has_no_bucket(error: BaseException) -> bool:
    """Return whether a store found no bucket, or container, to write to or to list: nothing else can be missing."""
    return isinstance(error, FileNotFoundError) or "ResourceNotFoundError" in _names(error)  # azure.core


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it comes from, as far as it passes that on: a bug that meets a fault stays a bug."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        passes_on = isinstance(cause, OSError | EmolibError) or type(cause) is RuntimeError or _names(cause)
        cause = cause.__cause__ if passes_on else None


def _names(error: BaseException) -> set[str]:
    """Return the names of what an error is a kind of, as far as that is a client's; none for those of others."""
    return {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in _CLIENTS}


def _does_not_answer(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    status, names = _status(error), _names(error)
    if not _NOT_TRUSTED.isdisjoint(names):
        return False
    return not _NO_ANSWER.isdisjoint(names) or status >= _SERVERS_FAULT or status in (_REQUEST_TIMEOUT, _TOO_MANY)


def _is_for_want_of_credentials(error: BaseException) -> bool:
    code = _code(error)
    is_bare = code == "400" and getattr(error, "operation_name", None) in _HEADS
    return (
        code in _REFUSED or is_bare or _status(error) == _UNAUTHORIZED or not _NONE_TO_BE_HAD.isdisjoint(_names(error))
    )


def _code(error: BaseException) -> str:
    """Return what a store calls an error, as those of botocore and azure.core carry it."""
    said = getattr(error, "response", None)
    known = said.get("Error") if isinstance(said, dict) else None
    code = known.get("Code") if isinstance(known, dict) else getattr(error, "error_code", None)
    return str(getattr(code, "value", code))


def _status(error: BaseException) -> int:
    """Return the status of HTTP that a client's error carries; 0 for any other."""
    if not _names(error):
        return 0
    said = getattr(error, "response", None)
    known = said.get("ResponseMetadata") if isinstance(said, dict) else None
    carried = [known.get("HTTPStatusCode")] if isinstance(known, dict) else []
    carried += [getattr(error, name, None) for name in ("status_code", "status", "code")]  # azure.core, aiohttp, gcsfs
    return next((int(each) for each in map(str, carried) if each.isdigit()), 0)
