"""The documentation of the tables is made from their schemas."""

from __future__ import annotations

from pathlib import Path

from emolib.archive import schemas


def test_every_column_stands_in_the_readme_as_the_schema_has_it() -> None:
    """After a change of columns, paste what `emolib.archive.schemas.markdown()` returns."""
    assert schemas.markdown() in (Path(schemas.__file__).parent / "README.md").read_text(encoding="utf-8")
