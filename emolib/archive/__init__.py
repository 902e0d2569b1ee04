"""Model and recordings -> predictions: plan, score, and the Parquet tables that people read."""

from emolib.archive.predictions import read

__all__ = ["read"]
