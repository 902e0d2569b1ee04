"""Whether an error means that an object store does not take the credentials, or not any more."""

from __future__ import annotations

from emolib.errors import OutputError

# What S3 says where credentials are no longer good; of a question for an object's head there is a bare 400.
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_HEADS = {"HeadObject", "HeadBucket"}
# What clients raise where none can be had, by name: each belongs to a package that comes with an extra.
_NONE_TO_BE_HAD = {
    "ClientAuthenticationError",  # azure.core
    "CredentialRetrievalError",  # botocore, as all that follow but the last
    "NoCredentialsError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "RefreshError",  # google.auth
}


def locked_out(error: BaseException) -> OutputError | None:
    """Return what stops a job whose credentials have expired, or can't be had any more; None for any other error.

    Nothing else can be reached in that store either; one object that may not be read is another matter.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_for_want_of_credentials(cause):
        cause = cause.__cause__
    if cause is None:
        return None
    said = " ".join(str(cause).split())
    return OutputError(
        f"no credentials found that the object store takes ({said}), expected valid ones: renew them, then run the "
        "same command again; what is done stays done"
    )


def _is_for_want_of_credentials(error: BaseException) -> bool:
    found = getattr(error, "response", None)
    code = found.get("Error", {}).get("Code") if isinstance(found, dict) else None
    is_bare = code == "400" and getattr(error, "operation_name", None) in _HEADS
    return code in _EXPIRED or is_bare or type(error).__name__ in _NONE_TO_BE_HAD
