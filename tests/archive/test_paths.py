"""What is stored says where to read and write, and is no reason to leave the archive or the predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emolib import corpora
from emolib.archive import blocks, read
from emolib.archive.duplicates import hash_files
from emolib.archive.joining import refresh_calls
from emolib.archive.ledger import Run
from emolib.archive.plan import PlannedRecording
from emolib.archive.predictions import Part
from emolib.archive.scoring import score_recordings
from emolib.archive.verification import verify
from emolib.config import ScoringConfig
from emolib.errors import Code, SettingsError
from emolib.sound.manifest import list_recordings
from emolib.sound.sketches import sketch_recordings
from emolib.storage import absolute, below, is_same, names_in, new_folder, resolve
from tests.archive.conftest import holding
from tests.faults.proxy import object_store

_PLANNED = ("2024-05-01", "path", "call", 9.0)  # of a recording, after its size


def _with(run: Run, **values: str) -> None:
    """Change the first row of a stored plan."""
    place = Path(run.folder.path) / "plan/part-00000.parquet"
    rows = pq.read_table(place)
    for name, value in values.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array([value, *rows[name].to_pylist()[1:]], pa.string()))
    pq.write_table(rows, place)


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["../secret.wav", "2024-05-01/../../secret.wav", "/etc/hostname", "s3://other/a.wav"])
@pytest.mark.parametrize("column", ["uri", "path"])
def test_a_planned_path_that_leaves_the_archive(
    column: str, name: str, start: Any, archive: Path, tmp_path: Path
) -> None:
    (archive.parent / "secret.wav").write_bytes(b"RIFF")
    run = start(tmp_path / "P")
    _with(run, **{column: name})
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one that stays there"):
        blocks.score_block(str(tmp_path / "P"), run.run_id, 0)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("date", ["../../../elsewhere", "2024-05-01/../../../elsewhere", "today", ""])
def test_a_planned_date_that_leaves_the_predictions(date: str, start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    _with(run, date=date)
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one such as"):
        blocks.score_block(str(tmp_path / "P"), run.run_id, 0)
    assert _files(tmp_path) == before


def test_a_noted_date_that_leaves_the_predictions(pred: Path, tmp_path: Path) -> None:
    (pred / "_stale.json").write_text(json.dumps({"dates": ["../../elsewhere"]}))
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one such as"):
        holding(pred, refresh_calls, pred)
    assert _files(tmp_path) == before


def test_a_part_of_a_plan_that_lies_elsewhere(start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    stored = json.loads((run.folder / "plan.json").read_text())
    stored["parts"][0]["name"] = "../../../../elsewhere.parquet"
    (run.folder / "plan.json").write_text(json.dumps(stored))
    with pytest.raises(SettingsError, match="expected one that stays there"):
        run.plan()


def test_a_candidate_whose_folder_lies_elsewhere(start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    place = run.folder / "config.json"
    shadow = {"model": "m", "model_id": "../../elsewhere", "scoring_fingerprint": "f", "share": 1.0}
    place.write_text(json.dumps(json.loads(place.read_text()) | {"shadow": shadow}))
    with pytest.raises(SettingsError, match=r"shadow\.model_id"):
        Run.open(tmp_path / "P", run.run_id)


def test_keys_of_an_object_store_are_no_way_up() -> None:
    for name in ("../a.wav", "2024//a.wav", "/a.wav", "./a.wav", "..", ""):
        with pytest.raises(SettingsError, match="expected one that stays there"):
            below("memory://archive", name)
    assert str(below("memory://archive", "2024/a..wav")) == "memory://archive/2024/a..wav"
    assert Part("2024-05-01", "20240501T000000-0000", 0).path("memory://P", "windows").name.startswith("part-")


ODD = [
    *("sip::x.wav", "memory::y.wav", "s3::z.wav", "s3:__x.wav", "a:b.wav", "C:\\calls\\a.wav", "data:,a.wav", "-x.wav"),
    *("~", "~nobody.wav", "~$a.wav", "a%20b.wav", "a b.wav", "a#b?c.wav", "a*[b]?.wav", "{a}.wav", "ä\u0308.wav"),
    *("sip::2024/http::a.wav", "'a\".wav", "$HOME.wav", "a;b&c|d.wav", "=a.wav"),
]


def test_any_name_that_a_file_may_have_is_only_a_name(bundle: Any, archive: Path, tmp_path: Path) -> None:
    """Colons and the like mean something in URLs, globs and shells; in the name of a file they mean nothing."""
    call = (archive / "2024-05-01/0.wav").read_bytes()
    root = tmp_path / "odd"
    for name in ODD:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(call)
    listed = list(list_recordings(root))
    assert {each.uri for each in listed} == set(ODD)

    planned = [PlannedRecording(0, each.recording_id, each.uri, each.version, each.size, *_PLANNED) for each in listed]
    scored = score_recordings(root, planned, bundle=bundle, config=ScoringConfig())
    assert [rows.recording["code"] for rows in scored] == ["ok"] * len(ODD)
    sketched = sketch_recordings(str(root), {each.uri: 1.0 for each in listed}, {})
    assert {each.code for each in sketched} == {Code.OK}
    hashes = hash_files(root, [(each.recording_id, each.uri, each.version) for each in listed])
    assert len(hashes) == len(ODD)


def test_a_table_of_a_corpus_names_files_and_no_file_systems(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = "".join(f'"{name.replace(chr(34), chr(34) * 2)}",s,joy\n' for name in ODD)
    (folder / "corpus.csv").write_text(f"path,speaker,emotion\n{rows}", encoding="utf-8")
    found = corpora.read([folder])
    assert set(found["uri"]) == {f"{folder}/{name}" for name in ODD}
    assert [str(resolve(uri)) for uri in found["uri"]] == found["uri"].tolist()


def test_a_url_that_reads_as_a_chain_of_file_systems_is_refused() -> None:
    """What follows "::" would be taken for another file system, and something else would be read."""
    for url in ("s3://bucket/sip::calls", "memory://archive/memory::calls"):
        with pytest.raises(SettingsError, match="'::' in it found"):
            resolve(url)
    assert resolve("simplecache::memory://archive/calls").path == "/archive/calls"


def test_what_lies_on_an_object_store_may_have_any_name(bundle: Any, archive: Path) -> None:
    root, call = resolve("memory://odd-archive"), (archive / "2024-05-01/0.wav").read_bytes()
    for name in ODD:
        root.fs.pipe_file(f"{root.path}/{name}", call)
    listed = list(list_recordings(root))
    assert {each.uri for each in listed} == set(ODD)
    planned = [PlannedRecording(0, each.recording_id, each.uri, each.version, each.size, *_PLANNED) for each in listed]
    scored = score_recordings(root, planned, bundle=bundle, config=ScoringConfig())
    assert [rows.recording["code"] for rows in scored] == ["ok"] * len(ODD)


@pytest.mark.parametrize("name", ["sip::a b#?%20*[0-9]{a,b}ä'\"$(;)", "~", "date=2024-05-01"])
def test_predictions_may_lie_in_a_folder_of_any_name(
    name: str, start: Any, finish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pred = tmp_path / name
    finish(start(pred))
    assert len(read(pred, table="recordings")) == 8
    assert not verify(pred, folder=tmp_path).problems
    assert len(read(f"./{name}", table="windows")) > 0
    holding(pred, refresh_calls, pred)
    assert {path.name for path in tmp_path.iterdir()} - {name, "archive", ".duckdb"} == set()


def test_own_outputs_in_an_archive_are_no_recordings(archive: Path, pred: Path, tmp_path: Path) -> None:
    before = [each.uri for each in list_recordings(archive)]
    shutil.copytree(pred, archive / "labels")
    for name in ("features.zarr/zarr.json", "features.zarr/features/c/0/0/0", "export/2024-05-01.rttm", "emolib.prom"):
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_bytes(b"0")
    assert [each.uri for each in list_recordings(archive)] == before


def test_one_place_has_many_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "Gespräche %20 #1"
    (calls / "2024").mkdir(parents=True)
    (tmp_path / "link").symlink_to(calls)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = [
        *(str(calls), f"{calls}/", f"/{calls}", f"{calls}//./", f"{calls}/2024/..", f"{tmp_path}/elsewhere/../link"),
        *(
            f"../{calls.name}",
            f"./../{calls.name}/",
            f"~/{calls.name}",
            f"file://{calls}",
            f"local://{calls}/",
            "../link",
        ),
    ]
    stored = [absolute(spelling) for spelling in spellings]
    monkeypatch.chdir("/")
    assert set(stored) == {str(calls), str(tmp_path / "link")}  # a link stays: it may lead elsewhere tomorrow
    for place in stored:
        assert is_same(place, calls)
        assert not is_same(place, calls / "2024")
    assert is_same("s3://bucket/calls/", "s3a://bucket/calls")
    assert not is_same("s3://bucket/calls", "s3://bucket/Calls")
    assert not is_same("s3://bucket/calls", "/bucket/calls")


@pytest.mark.slow
def test_a_folder_that_a_store_made_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles of object stores write an empty object of its name, which is listed in it as if it lay there."""
    s3fs = pytest.importorskip("s3fs")
    with object_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("made")
        files.pipe_file("made/out/", b"")
        assert names_in("s3://made/out") == names_in("s3://made/out/") == set()
        assert new_folder("s3://made/out").path == "made/out"
        files.pipe_file("made/out/out", b"mine")
        resolve("s3://made/out").fs.invalidate_cache()
        with pytest.raises(SettingsError, match=r"is not empty \(out found\)"):
            new_folder("s3://made/out")
