from datetime import date

import pytest
from hypothesis import given, strategies as st

from emolib.archive.calls import call_date, call_of, channel_roles, is_scored, unread_date
from emolib.config import ScoringConfig

DAYS = st.dates(date(1900, 1, 1), date(2099, 12, 31))


@given(
    DAYS,
    st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y.%m.%d", "%Y_%m_%d", "%Y%m%d235959", "%Y%m%d000000123"])
    | st.sampled_from(["%Y%m%dT080000", "%Y_%m_%d_08_00_00", "%Y.%m.%d.08.00"]),
    st.sampled_from(["{}.wav", "in/{}/a.wav", "x_{}_7.wav", "agent_45_17_{}.wav"]),
)
def test_every_date_in_a_path_is_found(day: date, form: str, place: str) -> None:
    assert call_date(place.format(day.strftime(form)), 0.0) == (day.isoformat(), "path")


@pytest.mark.parametrize(
    "uri",
    [
        "20240501240000.wav",
        "202405010800.wav",
        "200501080000.wav",
        "01.05.2024.10.12.wav",
        "01-05-2024-10-12.wav",
        "05_31_2024_10_12.wav",
        "2024.13.01.wav",
        "2024.05-01.wav",
        "10.2024.05.017.wav",
        "20230229.wav",
        "2024-13-01.wav",
        "2024/00/10/a.wav",
        "120240501.wav",
        "2024050112.wav",
        "2024-5-1.wav",
        "a.wav",
    ],
)
def test_what_is_no_date_is_not_taken_for_one(uri: str) -> None:
    assert call_date(uri, 1e9) == ("2001-09-09", "modified")


def test_the_more_explicit_date_wins_and_then_the_nearer_one() -> None:
    assert call_date("2024-05-01/20240601.wav", 0.0)[0] == "2024-05-01"
    assert call_date("2024-05-01/2024-05-02.wav", 0.0)[0] == "2024-05-02"
    assert call_date("2024-05-01/2024-99-99.wav", 0.0)[0] == "2024-05-01"


@given(
    DAYS, st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"]), st.sampled_from(["%Y.%m.%d", "%Y_%m_%d", "%Y%m%d080000"])
)
def test_a_path_that_had_a_date_keeps_it(day: date, before: str, since: str) -> None:
    other = date(2024, 5, 1).strftime(since)
    for uri in (f"{day.strftime(before)}/{other}.wav", f"{other}/{day.strftime(before)}.wav"):
        assert call_date(uri, 0.0) == (day.isoformat(), "path")


@pytest.mark.parametrize(
    "found",
    [
        *("240501", "240501080000", "202405010800", "01052024", "20240501256000", "01.05.2024", "05-31-2024", "5_1_24"),
        *("01/05/2024", "2024-5-1", "1-May-2024", "01MAY24"),
    ],
)
def test_what_looks_like_a_date_and_is_read_as_none_is_told(found: str) -> None:
    for uri in (f"{found}.wav", f"bonn/call_{found}_17.wav"):
        assert (call_date(uri, 1e9)[1], unread_date(uri)) == ("modified", found)
    assert [unread_date(uri) for uri in ("a.wav", "call_17.wav", "491701234567.wav", "171334.wav")] == [None] * 4


def test_an_unknown_time_of_modification_is_said_to_be_unknown() -> None:
    assert call_of("id", "a.wav", float("nan")).date_source == "unknown"


def test_only_customers_are_scored_once_roles_are_known() -> None:
    config = ScoringConfig(channels={0: "agent", 1: "customer"})
    assert [is_scored(role, config) for role in channel_roles(3, config)] == [False, True, False]
    assert not is_scored("mixed", config)
    assert is_scored("mixed", ScoringConfig(channels={0: "agent", 1: "customer"}, roles=("mixed",)))
