"""Two files whose names differ only in their Unicode form: one recording, one row, which says so."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from emolib.archive import read
from emolib.archive.rewriting import make_room
from emolib.archive.verification import verify
from tests.archive.conftest import holding


@pytest.mark.parametrize("form", ["2024-05-01/{}.wav", pytest.param("2024-05-01 {}/0.wav", marks=pytest.mark.slow)])
def test_one_row_until_one_of_them_goes(form: str, start: Any, finish: Any, archive: Path, tmp_path: Path) -> None:
    names = sorted(form.format(unicodedata.normalize(kind, "café")) for kind in ("NFC", "NFD"))
    for name in names:
        (archive / name).parent.mkdir(exist_ok=True)
        shutil.copy(archive / "2024-05-01/0.wav", archive / name)
    (archive / names[0]).write_bytes(b"RIFF")
    if (archive / names[1]).read_bytes() == b"RIFF":
        pytest.skip("this file system keeps one Unicode form")
    first = start(tmp_path / "P")
    finish(first)
    rows = read(tmp_path / "P", table="recordings").set_index("uri")
    assert len(rows) == 9
    row = rows.loc[names[0]]
    assert (row["outcome"], row["code"]) == ("failed", "ambiguous")
    assert all(ascii(name) in row["message"] for name in names)
    assert not verify(tmp_path / "P", folder=tmp_path).problems
    idle = start(tmp_path / "P")
    assert idle.plan().empty
    finish(idle)

    (archive / names[0]).unlink()
    second = start(tmp_path / "P")
    assert second.plan()["uri"].tolist() == [names[1]]
    holding(second.pred, make_room, second)
    finish(second)
    rows = read(tmp_path / "P", table="recordings").set_index("uri")
    assert (len(rows), rows.loc[names[1], "code"]) == (9, "ok")
    assert not verify(tmp_path / "P", folder=tmp_path).problems
