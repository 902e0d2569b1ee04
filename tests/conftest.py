"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(os.environ.get("EMOLIB_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real sound; tests that ask for it are skipped where it is not, except in CI, where they fail."""
    if not (_SHARED / "calls").is_dir():
        reason = f"no real sound in {_SHARED}; set EMOLIB_SHARED to the folder that holds corpora, calls and broken"
        if os.environ.get("EMOLIB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return _SHARED
