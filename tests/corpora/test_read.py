from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from emolib import corpora
from emolib.corpora import ravdess, savee, tess
from emolib.corpora.names import Fields
from emolib.errors import SettingsError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_table(folder: Path, *lines: str, name: str = "corpus.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


# ---- file names


@pytest.mark.parametrize("parser", corpora.PARSERS)
@pytest.mark.parametrize("name", ["", "README", "a.wav", "03-01-09-01-01-01-01.wav", "DC_x01.wav", "OAF_fear.wav"])
def test_other_names_belong_to_no_corpus(parser: corpora.CorpusParser, name: str) -> None:
    assert parser.parse(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "03-02-06-01-02-01-12",  # song
        "01-01-06-01-02-01-12",  # video with sound
        "02-01-06-01-02-01-12",  # video without
        "03-01-06-01-02-01-25",  # no such actor
        "03-01-06-01-02-01-00",
        "03-01-06-01-02-01-12-01",
        "03-01-06-01-02-01-12 (1)",
    ],
)
def test_ravdess_is_speech_as_sound_alone(name: str) -> None:
    assert ravdess.parse(f"{name}.wav") is None


@pytest.mark.parametrize("path", ["DC_sa01.WAV", "/a/b.c/DC_sa01.flac", "s3://b/DC_sa01.opus", r"c:\a\DC_sa01.m4a"])
def test_the_stem_decides_whatever_the_container_and_the_folder(path: str) -> None:
    assert savee.parse(path) == Fields("DC_sa01", "DC", "male", "sadness")


def test_the_irregular_name_of_tess_keeps_its_name_and_has_its_speaker() -> None:
    assert tess.parse("OA_bite_neutral.wav") == Fields("OA_bite_neutral", "OAF", "female", "neutral")
    assert tess.parse("OA_dog_neutral.wav") is None


def test_every_word_of_a_parser_is_declared() -> None:
    names = [f"03-01-0{emotion}-01-01-01-01" for emotion in range(1, 9)]
    assert tuple(fields.emotion for fields in map(ravdess.parse, names) if fields) == ravdess.EMOTIONS
    names = [f"JK_{letters}01" for letters in ("a", "d", "f", "h", "n", "sa", "su")]
    assert tuple(fields.emotion for fields in map(savee.parse, names) if fields) == savee.EMOTIONS
    names = [f"YAF_dog_{word}" for word in tess.EMOTIONS]
    assert tuple(fields.emotion for fields in map(tess.parse, names) if fields) == tess.EMOTIONS


# ---- folders


def test_a_corpus_that_lies_twice_keeps_the_first_in_path_order(tmp_path: Path) -> None:
    touch(tmp_path, "tess/tess/OAF_a_sad.wav", "tess/OAF_a_sad.wav", "a/x/OAF_a_sad.wav", "tess/YAF_a_sad.wav")
    rows = corpora.read([tmp_path]).set_index("utterance_id")
    assert rows["code"].to_dict() == {
        "tess/OAF_a_sad": "ok",
        "tess/OAF_a_sad#2": "duplicate",
        "tess/OAF_a_sad#3": "duplicate",
        "tess/YAF_a_sad": "ok",
    }
    assert rows.loc["tess/OAF_a_sad", "uri"] == str(tmp_path / "a/x/OAF_a_sad.wav")


def test_a_file_that_several_paths_lead_to_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(
        tmp_path, "savee/DC_a01.wav", "savee/.hidden/DC_a02.wav", "savee/._DC_a03.wav", "savee/info.txt", "savee/x.wav"
    )
    monkeypatch.chdir(tmp_path)
    rows = corpora.read(["savee", tmp_path, tmp_path / "savee"])
    assert rows["uri"].tolist() == [str(tmp_path / "savee" / "DC_a01.wav")]
    assert rows["code"].tolist() == ["ok"]
    assert rows.attrs["unrecognised"] == [str(tmp_path / "savee" / "x.wav")]


def test_the_order_of_the_paths_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "a/DC_a01.wav", "b/DC_a01.wav", "b/OAF_a_sad.wav")
    table = write_table(tmp_path / "mine", "path,speaker,emotion", "x.wav,1,joy")
    paths = [tmp_path / "a", tmp_path / "b", table]
    pd.testing.assert_frame_equal(corpora.read(paths), corpora.read(paths[::-1]))


def test_the_shared_corpora_are_complete(shared: Path) -> None:
    rows = corpora.read([shared / "corpora" / name for name in ("ravdess", "savee", "tess")])
    assert rows["corpus"].value_counts().to_dict() == {"tess": 2800, "ravdess": 1440, "savee": 480}
    assert set(rows["code"]) == {"ok"}
    assert rows.attrs["unrecognised"] == []
    assert rows["utterance_id"].is_unique
    assert rows["utterance_id"].is_monotonic_increasing
    assert rows.groupby("corpus")["speaker"].nunique().to_dict() == {"ravdess": 24, "savee": 4, "tess": 2}
    assert rows["gender"].value_counts().to_dict() == {"female": 720 + 2800, "male": 720 + 480}


def test_the_published_originals_are_all_recognised(shared: Path) -> None:
    rows = corpora.read([shared / "corpora" / "original"])
    assert len(rows) == 11
    assert set(rows["code"]) == {"ok"}  # also the byte-identical pair: it has two names
    assert rows.attrs["unrecognised"] == []


# ---- tables


def test_a_table_is_read_with_its_defaults(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "mine",
        "speaker, path, emotion, gender, note",
        '01, a/1.wav, joy, F, "x, y"',
        "NA, /elsewhere/2.wav, sad, male,",
        "3, memory://bucket/3.wav, fear, ,",
    )
    rows = corpora.read([table])
    pd.testing.assert_frame_equal(rows, corpora.read([tmp_path / "mine"]))
    assert rows.set_index("utterance_id").to_dict("index") == {
        utterance_id: {"corpus": "mine", "speaker": s, "gender": g, "emotion": e, "uri": uri, "code": "ok"}
        for utterance_id, s, g, e, uri in [
            ("mine//elsewhere/2.wav", "NA", "male", "sad", "/elsewhere/2.wav"),
            ("mine/a/1.wav", "01", "female", "joy", str(tmp_path / "mine/a/1.wav")),
            ("mine/memory://bucket/3.wav", "3", None, "fear", "memory://bucket/3.wav"),
        ]
    }


def test_optional_columns_are_taken(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "path,speaker,emotion,utterance_id,corpus",
        "1.wav,1,joy,one,studio",
        "2.wav,1,joy,,",
        name="calls.csv",
    )
    rows = corpora.read([tmp_path / "calls.csv"])
    assert rows["utterance_id"].tolist() == ["calls/2.wav", "studio/one"]
    assert rows["corpus"].tolist() == ["calls", "studio"]


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["1.wav", "2.wav"], "speaker": [1, 2], "emotion": "joy", "gender": ["m", None]})
    for name in ("csv", "parquet"):
        (tmp_path / name / "mine").mkdir(parents=True)
    frame.to_csv(tmp_path / "csv/mine/corpus.csv", index=False, encoding="utf-8-sig")
    frame.to_parquet(tmp_path / "parquet/mine/corpus.parquet")
    from_csv, from_parquet = (corpora.read([tmp_path / name / "mine"]) for name in ("csv", "parquet"))
    assert from_csv["gender"].tolist() == ["male", None]
    pd.testing.assert_frame_equal(from_csv.drop(columns="uri"), from_parquet.drop(columns="uri"))


def test_tables_and_folders_on_another_file_system() -> None:
    folder = UPath("memory://corpora-test")
    for name in ("savee/DC_a01.wav", "mine/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")
    (folder / "mine" / "corpus.csv").write_text("path,speaker,emotion\na.wav,1,joy\n")
    rows = corpora.read([str(folder / "savee"), str(folder / "mine")])
    assert rows["uri"].tolist() == ["memory://corpora-test/mine/a.wav", "memory://corpora-test/savee/DC_a01.wav"]


HEADER = "path,speaker,emotion,gender,utterance_id"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,speaker", "a.wav,1"], "has the columns path, speaker, expected .* add emotion"),
        (["path;speaker;emotion", "a.wav;1;joy"], "semicolons between its columns, expected commas"),
        (["\ufeffpath\tspeaker\temotion", "a.wav\t1\tjoy, or so"], "tabs between its columns"),
        ([HEADER], "has no rows"),
        ([], "cannot be read"),
        (["path,speaker,emotion", "a.wav,1,joy", "b.wav,1,sad,more"], "cannot be read"),
        (["path,speaker,emotion", "a.wav,1,joy,more"], "more cells than its header"),
        ([HEADER, "a.wav,1,joy,,", "b.wav,,joy,,"], "row 2: no speaker found"),
        ([HEADER, "a.wav,1,,,"], "row 1: no emotion found"),
        ([HEADER, "a.wav,1,joy,woman,"], "row 1: gender 'woman' found, expected female, male or nothing"),
        ([HEADER, "../a.wav,1,joy,,"], "'../a.wav' leaves the table's folder"),
        ([HEADER, "b/../../a.wav,1,joy,,"], "leaves the table's folder"),
        ([HEADER, "a.wav,1,joy,,1", "b/../a.wav,2,sad,,2"], "row 2: path 'b/../a.wav' found a second time"),
        ([HEADER, "a.wav,1,joy,,1", "b.wav,2,sad,,1"], "utterance_id 'mine/1' found for .*a.wav and .*b.wav"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    write_table(tmp_path / "mine", *lines)
    with pytest.raises(SettingsError, match=message) as error:
        corpora.read([tmp_path / "mine"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
def test_a_table_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mine.csv").write_text("path,speaker,emotion\na.wav,Zoë,joy\n", encoding=encoding)
    with pytest.raises(SettingsError, match=r"is no text in UTF-8.*: save it as that"):
        corpora.read([tmp_path / "mine.csv"])


@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_a_table_as_any_spreadsheet_writes_it(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["path,speaker,emotion", "ä;b.wav,Zoë,joy", ""])
    (tmp_path / "mine.csv").write_bytes(text.encode(encoding))
    (row,) = corpora.read([tmp_path / "mine.csv"]).to_dict("records")
    assert (row["speaker"], row["uri"]) == ("Zoë", str(tmp_path / "ä;b.wav"))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path, HEADER, name="mine.parquet")
    with pytest.raises(SettingsError, match="cannot be read"):
        corpora.read([tmp_path / "mine.parquet"])


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/mine", "b/mine"):
        write_table(tmp_path / name, "path,speaker,emotion", "1.wav,1,joy")
    with pytest.raises(SettingsError, match="give each table its own name"):
        corpora.read([tmp_path / "a/mine", tmp_path / "b/mine"])
    assert len(corpora.read([tmp_path / "a/mine", tmp_path / "a/mine/corpus.csv"])) == 1


# ---- paths that are wrong


def test_wrong_paths_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "empty/.keep", "other/a.wav", "other/b.wav", "both/corpus.csv", "both/corpus.parquet")
    for path, message in [
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "empty", "holds no sound files, expected ravdess, savee, tess"),
        (tmp_path / "other", "holds 2 files, none with a name of these corpora"),
        (tmp_path / "other" / "a.wav", "is a file, expected a folder or a table"),
        (tmp_path / "both", "expected one table"),
    ]:
        with pytest.raises(SettingsError, match=message):
            corpora.read([path])
    with pytest.raises(SettingsError, match="no corpus given"):
        corpora.read([])


def test_a_corpus_of_which_a_folder_can_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive may have gaps; a corpus without some of its speakers is another one."""
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "03-01-01-01-01-01-02.wav").write_bytes(b"RIFF")
    scandir = os.scandir

    def guarded(folder: str):  # type: ignore[no-untyped-def]
        if str(folder).endswith("Actor_01"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SettingsError, match=r"folder 'Actor_01' of corpus .* can't be read \(Permission denied\)"):
        corpora.read([tmp_path])
