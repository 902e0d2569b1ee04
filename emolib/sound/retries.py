"""Reads that are tried again: a disk or a network that said no once may say yes in a moment."""

from __future__ import annotations

import errno

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from emolib.errors import AudioError, Code, OutputError


def _is_transient(error: BaseException) -> bool:
    """Return whether reading a recording failed in a way that may be over in a moment."""
    cause = error.__cause__
    return isinstance(error, OutputError) or (
        isinstance(error, AudioError)
        and error.code is Code.UNREADABLE
        and isinstance(cause, Exception)
        and not isinstance(cause, ValueError)  # a name that no file can have
        and getattr(cause, "errno", None) not in _LASTING
    )


# What a file system says that it will say again; anything else that it, or a network, says may pass.
_LASTING = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
retried = Retrying(
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=1.0),
    retry=retry_if_exception(_is_transient),
    reraise=True,
)
"""Calls a function that reads a recording, ``retried(read, *arguments)``, three times at most."""
