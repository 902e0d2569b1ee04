"""The bytes of what a run would score, fanned out: which of its recordings were delivered twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from emolib.archive import ledger
from emolib.archive.duplicates import LIMIT_S, hash_files, to_hash, with_originals
from emolib.archive.pseudonyms import Pseudonyms
from emolib.isolation import isolated
from jobs.console import say
from jobs.fanout import Block, Done, fan_out, patience_s

if TYPE_CHECKING:
    from distributed import Client

# A block is so many files, or so many bytes, at most: a gigabyte takes some seconds.
_FILES, _BYTES = 1000, 2**30


def find_duplicates(
    client: Client,
    archive: str,
    out: str,
    planned: pd.DataFrame,
    listing: pd.DataFrame,
    pseudonyms: Pseudonyms | None,
) -> pd.DataFrame:
    """Return a plan that says which of its recordings have the same bytes as another one."""
    known = ledger.known(out, "uri", "size", "direction")
    files = to_hash(planned, listing, known)
    number = (files["size"].cumsum() // _BYTES) * len(files) + pd.RangeIndex(len(files)) // _FILES
    rows = files[["recording_id", "uri", "version"]]
    blocks = [Block((archive, list(part.itertuples(index=False, name=None)))) for _, part in rows.groupby(number)]
    hashes: dict[str, str] = {}
    for ended in fan_out(client, isolated(hash_files), blocks, stall_s=patience_s(LIMIT_S)):
        if isinstance(ended, Done):
            hashes |= ended.value
        else:
            say(f"{len(ended.block.arguments[1])} files were not compared with others: {ended.message}")
    if pseudonyms is not None:
        hashes = {name: pseudonyms.of(content, "content") for name, content in hashes.items()}
    found = with_originals(planned, known, hashes)
    say(f"{int(found['duplicate_of'].notna().sum())} of {len(found)} recordings have the same bytes as another one")
    return found
