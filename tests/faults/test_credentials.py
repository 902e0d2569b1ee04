"""Credentials of an object store: they run out while a job runs, and they are written and said nowhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from emolib import archive
from emolib.archive.predictions import is_predictions
from emolib.errors import OutputError
from emolib.sound.manifest import list_recordings, version_of
from emolib.sound.source import opened
from emolib.storage import resolve, write_json
from jobs.console import EXIT_INTERRUPTED, EXIT_SETTINGS, advice, code_of
from tests.faults.proxy import Store, object_store, put
from tests.faults.world import assert_whole, files_of, paused
from tests.jobs.conftest import in_process, run_emolib

pytest.importorskip("s3fs")
RECORDINGS = 26
# Of no form that could stand in a file by chance.
SECRETS = ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYSECRET", "FwoGZXIvYXdzEFIRSTTOKEN", "FwoGZXIvYXdzESECONDTOKEN")
COMMON = ("--workers", "2", "--block-s", "8", "--failure-budget", "1")


class Keys:
    """The shared credentials file, which somebody renews."""

    def __init__(self, place: Path, store: Store) -> None:
        self._place, self._store = place, store

    def renew(self, token: str) -> None:
        secret = f"aws_access_key_id = testing\naws_secret_access_key = {SECRETS[0]}\naws_session_token = {token}\n"
        beside = self._place.with_suffix(".new")
        beside.write_text(f"[default]\n{secret}")
        beside.replace(self._place)

    def expire(self, token: str) -> None:
        self._store.expired.add(token)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with object_store() as store:
        yield store


@pytest.fixture
def keys(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Tokens in a file, and none in the environment."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    keys = Keys(tmp_path / "credentials", store)
    store.expired.clear()
    store.failed.clear()
    keys.renew(SECRETS[1])
    return keys


@pytest.fixture
def bucket(keys: Keys) -> str:
    name = f"bucket-{uuid4().hex}"
    resolve(f"s3://{name}").fs.mkdir(name)
    return f"s3://{name}"


def test_renewed_credentials_are_read_without_a_new_process(keys: Keys, bucket: str) -> None:
    """Whoever holds a place, and whoever asks for one: reading, listing and writing."""
    place = resolve(f"{bucket}/archive/a.wav")
    place.write_bytes(b"RIFF")
    keys.renew(SECRETS[2])
    keys.expire(SECRETS[1])
    assert place.read_bytes() == b"RIFF"
    assert version_of(place)[1] == 4
    assert [each.uri for each in list_recordings(f"{bucket}/archive")] == ["a.wav"]
    write_json(f"{bucket}/note.json", {})


_A_STORE = """
import sys, pandas as pd
from emolib.config import TELEPHONE
from emolib.features.store import WINDOWS_SCHEMA, FeatureStore

row = {**dict.fromkeys(WINDOWS_SCHEMA.names, "a"), "window": 0, "channel": None, "start_s": 0, "end_s": 4}
store = FeatureStore.create(sys.argv[1], profile=TELEPHONE, windows=pd.DataFrame([row]))
print("there", flush=True)
input()
print(store.status().tolist(), store.windows["uri"].tolist(), FeatureStore.open(sys.argv[1]).shape)
"""


@pytest.mark.slow
def test_an_opened_feature_store_reads_renewed_credentials(keys: Keys, bucket: str) -> None:
    """In a process of its own: s3fs leaves it to the end of a process to close what Zarr has opened."""
    command = [sys.executable, "-c", _A_STORE, f"{bucket}/S.zarr"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        keys.renew(SECRETS[2])
        keys.expire(SECRETS[1])
        out, _ = process.communicate("\n")
    assert (process.returncode, out) == (0, "[0] ['a'] (1, 249, 40)\n")


def test_expired_credentials_are_no_fault_of_a_recording(keys: Keys, bucket: str) -> None:
    """It gets no row, and the job ends as one that can go on; what one object's owner forbids is another matter."""
    place = resolve(f"{bucket}/a.wav")
    place.write_bytes(b"RIFF")
    keys.expire(SECRETS[1])

    def opens() -> None:
        with opened(place):
            pass

    for asks in (lambda: version_of(place), opens):
        with pytest.raises(OutputError, match="renew them, then run the same command again"):
            asks()
    with pytest.raises(OSError) as raised:  # noqa: PT011  (what a lock, or a table, meets)
        place.read_bytes()
    assert (code_of(raised.value), "renew the credentials" in advice(raised.value)) == (EXIT_INTERRUPTED, True)
    assert code_of(PermissionError("Access Denied")) == EXIT_SETTINGS


@pytest.mark.slow
def test_the_doctor_names_every_place_that_wants_credentials(keys: Keys, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "credentials").unlink()
    places = ("--archive", f"{bucket}/archive", "--model", f"{bucket}/model", "--out", f"{bucket}/P")
    ended = run_emolib("doctor", *places, "--workers", "1")
    assert ended.exit_code == EXIT_SETTINGS
    assert {"archive", "model", "output"} <= set(ended.summary["ill"])


@pytest.mark.fault
def test_credentials_that_are_renewed_under_a_job(
    keys: Keys, store: Store, bucket: str, calls: Path, model: Path, undisturbed: Path
) -> None:
    """Driver, workers and scorers read the new ones: nobody notices."""
    put(calls, f"{bucket}/archive")
    with paused("score", f"{bucket}/archive", "--out", f"{bucket}/P", "--model", model, *COMMON) as (running, go_on):
        keys.renew(SECRETS[2])
        time.sleep(3)  # what is under way has still the old ones, as whoever renews them knows
        keys.expire(SECRETS[1])
        go_on()
        code, said = running.end()
    assert code == 0, said
    assert not store.failed["expired"]
    assert_whole(f"{bucket}/P", undisturbed, recordings=RECORDINGS)


@pytest.mark.fault
@pytest.mark.sample
def test_credentials_that_nobody_renews(
    keys: Keys, store: Store, bucket: str, calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """No recording is to blame: none becomes unreadable; the job stops, says what to do, and goes on with new ones."""
    put(calls, f"{bucket}/archive")
    command = ("score", f"{bucket}/archive", "--out", tmp_path / "P", "--model", model, *COMMON)
    with paused(*command) as (running, go_on):
        keys.expire(SECRETS[1])
        go_on()
        code, said = running.end()
    assert (code, "renew them, then run the same command again" in said) == (5, True), said
    assert store.failed["expired"]
    assert not (archive.read(tmp_path / "P", table="recordings")["code"] == "unreadable").any()
    late = run_emolib(*command)
    assert (late.exit_code, "renew the credentials" in late.summary["error"]) == (5, True), late
    keys.renew(SECRETS[2])
    assert run_emolib(*command).exit_code == 0
    assert_whole(tmp_path / "P", undisturbed, recordings=RECORDINGS)


@pytest.mark.slow
def test_credentials_are_written_and_said_nowhere(
    keys: Keys, store: Store, bucket: str, calls: Path, model: Path, tmp_path: Path
) -> None:
    put(calls, f"{bucket}/archive")
    put(model, f"{bucket}/model")
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRETS[0],
        "AWS_SESSION_TOKEN": SECRETS[1],
    }
    night = (
        *("nightly", f"{bucket}/archive", "--model", f"{bucket}/model", "--out", f"{bucket}/P", *COMMON),
        *("--report", tmp_path / "nights", "--metrics", tmp_path / "night.prom", "--settle-s", "0"),
    )
    ended, said = in_process("--log-format", "json", *night, environment=settings)
    assert ended.exit_code == 0, said
    assert is_predictions(f"{bucket}/P")
    keys.expire(SECRETS[1])
    refused, more = in_process("--debug", *night, environment=settings)
    keys.renew(SECRETS[2])
    assert "Bad Request" in more, more  # all that S3 says of it where only an object's head is asked for
    written = {place: place.read_bytes() for place in (tmp_path / "nights").rglob("*") if place.is_file()}
    written |= {place: resolve(f"s3://{place}").read_bytes() for place in resolve(bucket).fs.find(bucket)}
    written |= {"measures": (tmp_path / "night.prom").read_bytes()}
    written |= {"said": (said + more + str(ended.summary) + str(refused.summary)).encode()}
    assert len(written) > 2 * files_of(calls)
    for place, content in written.items():
        for secret in SECRETS:
            assert secret.encode() not in content, place
