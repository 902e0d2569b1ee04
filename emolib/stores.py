"""What the clients of object stores raise: that nobody is let in any more, or that the store can't be reached.

Each client belongs to a package that comes with an extra: its errors are known by their names and by what they carry.
"""

from __future__ import annotations

from collections.abc import Iterator

from emolib.errors import OutputError

# What stores say where credentials are no longer good; of a question for an object's head S3 has a bare 400.
_REFUSED = {
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),  # S3
    *("AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo"),  # Azure
}
_HEADS = {"HeadObject", "HeadBucket"}
# What clients raise where none can be had.
_NONE_TO_BE_HAD = {
    "ClientAuthenticationError",  # azure.core
    "CredentialRetrievalError",  # botocore, as all that follow but the last
    "NoCredentialsError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "RefreshError",  # google.auth
}
# What they raise, or what that is a kind of, where nobody answers.
_NO_ANSWER = {
    "ConnectionError",  # Python's, botocore's, requests'
    "HTTPClientError",  # botocore
    "ClientConnectionError",  # aiohttp
    "ServiceRequestError",  # azure.core
    "ServiceResponseError",
    "TransportError",  # google.auth
    "TimeoutError",
}
_SERVERS_FAULT, _UNAUTHORIZED = 500, 401  # HTTP


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


def out_of_reach(error: BaseException) -> bool:
    """Return whether an error means that a store, or the network before it, does not answer, or has a fault of its own.

    Examples
    --------
    >>> out_of_reach(ConnectionResetError()), out_of_reach(FileNotFoundError())
    (True, False)
    """
    return any(
        not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(cause).__mro__) or _status(cause) >= _SERVERS_FAULT
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_for_want_of_credentials(error: BaseException) -> bool:
    said = getattr(error, "response", None)
    code = said.get("Error", {}).get("Code") if isinstance(said, dict) else getattr(error, "error_code", None)
    is_bare = code == "400" and getattr(error, "operation_name", None) in _HEADS
    is_refused = getattr(code, "value", code) in _REFUSED or _status(error) == _UNAUTHORIZED
    return is_refused or is_bare or type(error).__name__ in _NONE_TO_BE_HAD


def _status(error: BaseException) -> int:
    """Return the status of HTTP that an error carries, as those of gcsfs and azure.core do; 0 for any other."""
    status = getattr(error, "code" if type(error).__name__ == "HttpError" else "status_code", None)
    return status if isinstance(status, int) else 0
