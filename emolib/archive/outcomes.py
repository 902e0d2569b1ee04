"""What passes between those who score and those who ask for it. Small, and quickly imported by both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The small numbers that come back of a block.

    Attributes
    ----------
    by_code
        Number of recordings by code.
    audio_s
        Seconds of sound that were decoded in `seconds`; 0 where the block was done before.
    windows
        Number of windows scored.
    seconds
        Time that the block took; next to nothing where it was done before.
    unforeseen
        Message of its first recording that is `internal`; empty where none is, and where it was done before.
    """

    block: int
    recordings: int
    by_code: dict[str, int]
    audio_s: float
    windows: int
    seconds: float
    unforeseen: str = ""
