"""A process that makes attempts at blocks and shards, and waits where it is told. See `test_two_at_once`.

python -m tests.laws.attempt, and on stdin a line of JSON for each attempt: what to call with which arguments, and
before which file gets its name to wait. On stdout it says that it is ready, that it waits, that an attempt has ended.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from emolib.archive.blocks import score_block
from emolib.features.extraction import extract_shard

_CALLS = {"score_block": score_block, "extract_shard": extract_shard}
_before = [0]  # so many files more get their names until it waits


def _say(word: str) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


def _waiting(give_name: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Return what waits before it gives a file that was written whole its name."""

    def waits(source: Path, target: Path) -> None:
        _before[0] -= 1
        if _before[0] == 0:
            _say("waits")
            sys.stdin.readline()
        give_name(source, target)

    return waits


def main() -> None:
    """Make attempts as they are asked for."""
    os.replace, os.link = _waiting(os.replace), _waiting(os.link)
    _say("ready")
    while line := sys.stdin.readline():
        asked = json.loads(line)
        _before[0] = asked["waits_at"]
        _CALLS[asked["call"]](*asked["arguments"])
        _say("ended")


if __name__ == "__main__":
    main()
