"""Model and recordings -> predictions: plan, score, and the Parquet tables that people read."""

from emolib.archive.predictions import read
from emolib.archive.shadow import read_shadow

__all__ = ["read", "read_shadow"]
