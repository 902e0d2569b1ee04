"""The documentation of the tables is made from their schemas."""

from __future__ import annotations

from pathlib import Path

from emolib.archive import schemas


def test_every_column_stands_in_the_readme_as_the_schema_has_it() -> None:
    """After a change of columns, paste what `emolib.archive.schemas.markdown()` returns."""
    assert schemas.markdown() in (Path(schemas.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_what_version_1_wrote_is_what_it_is_taken_for() -> None:
    """Of the tables that blocks write: a column that is added later and does not say so makes old parts damaged."""
    of_recordings = (
        "recording_id uri version call_id date_source direction agent queue site extra size codec "
        "sampling_rate channels duration_s decoded_s outcome code message attempts model_id run_id "
        "scoring_fingerprint"
    )
    of_channels = (
        "recording_id channel call_id role outcome code windows_total windows_scored windows_abstained "
        "speech_s tone_s share_a mean_a polarity_negative polarity_neutral polarity_positive "
        "first_quarter_negative first_quarter_neutral first_quarter_positive last_quarter_negative "
        "last_quarter_neutral last_quarter_positive trend_negative trend_neutral trend_positive "
        "worst_start_s worst_end_s worst_negative level_dbfs snr_db bandwidth_hz clipped_share flags "
        "model_id run_id scoring_fingerprint"
    )
    of_windows = (
        "recording_id channel start_s end_s p_a polarity_negative polarity_neutral polarity_positive emotion "
        "confidence model_id run_id scoring_fingerprint"
    )
    for table, names in (("recordings", of_recordings), ("channels", of_channels), ("windows", of_windows)):
        assert schemas.schema(table, ["a"], version=1).names == names.split()
