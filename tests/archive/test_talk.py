"""Turns, answers, interruptions and silence, through `emolib.archive.talk`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.archive.talk import Talk, joined_talk, talk, talk_columns
from emolib.sound.speech import FRAME_S

Speech = NDArray[np.bool_]


def said(*spans_s: tuple[float, float], duration_s: float = 60.0) -> Speech:
    mask = np.zeros(round(duration_s / FRAME_S), bool)
    for start_s, end_s in spans_s:
        mask[round(start_s / FRAME_S) : round(end_s / FRAME_S)] = True
    return mask


def call(agent: Speech, customer: Speech) -> Talk:
    return talk([agent, customer], ["agent", "customer"])


def test_pauses_belong_to_a_turn_and_clicks_are_none() -> None:
    found = call(said((3, 6), (6.3, 9), (20, 20.12)), said((12, 15)))
    assert found.talk_s == {"agent": 6.0, "customer": 3.0}
    assert found.overlap_s == 0


def test_answers_take_the_time_in_which_nobody_talks() -> None:
    found = call(said((6, 9), (18, 21)), said((3, 5.1), (9.9, 15)))
    assert found.latencies_s == {"agent": (0.9, 3.0), "customer": (0.9,)}
    assert joined_talk([talk_columns(found)])["agent_latency_s"] == pytest.approx(1.95)


def test_an_interruption_takes_the_floor_and_yes_does_not() -> None:
    customer = said((3, 12), (30, 36))
    found = call(said((6, 6.6), (9, 18)), customer)
    assert found.interruptions == {"agent": 1, "customer": 0}
    assert found.overlap_s == pytest.approx(3.6, abs=0.05)
    assert not any(start < 0 for start in found.latencies_s["customer"])
    assert call(said((3.3, 18)), customer).interruptions["agent"] == 0  # both began at once


def test_a_backchannel_takes_no_floor() -> None:
    found = call(said((0, 3), (3.6, 6.6)), said((1.2, 1.5)))
    assert found.latencies_s == {"agent": (), "customer": ()}
    assert found.monologue_s["agent"] == pytest.approx(6.6)


def test_a_monologue_ends_where_the_other_begins() -> None:
    found = call(said((3, 6), (9, 15), (30, 33)), said((21, 24)))
    assert found.monologue_s == {"agent": pytest.approx(12), "customer": pytest.approx(3)}


def test_silence_of_more_than_three_seconds_is_no_talk() -> None:
    found = call(said((0, 10.02)), said((12, 18), (24, 60)))
    assert found.non_talk_s == pytest.approx(6.0)
    assert talk([said()], [None]).non_talk_s == pytest.approx(60)


def test_without_roles_only_silence_is_known() -> None:
    found = joined_talk([talk_columns(talk([said((3, 6)), said((9, 12))], [None, None]))])
    assert found["non_talk_s"] == pytest.approx(48)
    assert {found[name] for name in ("agent_talk_s", "customer_talk_s", "overlap_s", "agent_latency_s")} == {None}


def test_recordings_of_a_call_add_up() -> None:
    one, other = call(said((3, 6)), said((7.5, 9))), call(said((15, 21)), said())
    found = joined_talk([talk_columns(one), talk_columns(other)])
    assert found["agent_talk_s"] == pytest.approx(9)
    assert found["agent_monologue_s"] == pytest.approx(6)
    assert found["customer_latency_s"] == pytest.approx(1.5)


@given(agent=st.lists(st.booleans(), min_size=1, max_size=300), seed=st.integers(0, 99))
def test_no_one_talks_longer_than_the_call(agent: list[bool], seed: int) -> None:
    customer = np.random.default_rng(seed).random(len(agent)) < 0.5
    found = call(np.repeat(agent, 10), customer.repeat(10))
    whole = len(agent) * 10 * FRAME_S + 0.01
    assert found.overlap_s is not None
    assert found.overlap_s <= min(found.talk_s.values()) + 0.01
    assert sum(found.talk_s.values()) - found.overlap_s + found.non_talk_s <= whole
    for party in ("agent", "customer"):
        assert found.monologue_s[party] <= whole
        assert all(latency >= 0 for latency in found.latencies_s[party])
