"""Channels heard in pieces, and the pool that runs their windows through the model in full batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from emolib.archive.listening import Channel, WindowPool
from emolib.config import ScoringConfig
from emolib.errors import Code
from tests.archive.conftest import FakeBundle, voice


class CountingModel:
    """Says of each window which number stands in it, and remembers how many it saw at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict(self, features: Any, valid_frames: Any, *, batch: int) -> Any:
        assert len(features) == len(valid_frames) <= batch
        self.asked.append(len(features))
        return features[:, 0, :1].copy()


@given(batch=st.integers(1, 12), counts=st.lists(st.integers(0, 30), max_size=12))
def test_a_pool_gives_each_channel_its_own_windows_in_full_batches(batch: int, counts: list[int]) -> None:
    model = CountingModel()
    pool = WindowPool(model, batch=batch)  # type: ignore[arg-type]
    found: list[list[Any]] = [[] for _ in counts]
    numbers = np.split(np.arange(sum(counts), dtype=np.float32), np.cumsum(counts)[:-1]) if counts else []
    for mine, delivered in zip(numbers, found, strict=True):
        pool.add(mine.reshape(-1, 1, 1), np.ones(len(mine), np.int32), delivered.append)
    pool.flush()
    pool.flush()
    for mine, delivered in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(np.concatenate([np.zeros((0, 1)), *delivered])[:, 0], mine)
    assert all(seen == batch for seen in model.asked[:-1])
    assert sum(model.asked) == sum(counts)


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 70 * 8000), max_size=8), batch=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_channel_is_the_same_however_it_is_heard(cuts: list[int], batch: int, seed: int) -> None:
    signal = voice(70, seed=seed).copy()  # more than is listened to at once
    signal[8000 * 9 : 8000 * 17] = 0  # windows in which nobody speaks

    def hear(pieces: list[Any], batch: int) -> Any:
        bundle: Any = FakeBundle()
        pool = WindowPool(bundle, batch=batch)
        channel = Channel(None, config=ScoringConfig(), pool=pool)
        for piece in pieces:
            channel.hear(piece)
        channel.finish()
        pool.flush()
        return channel.result(Code.OK, "", duration_s=70.0)

    whole, cut = hear([signal], 64), hear(np.split(signal, sorted(cuts)), batch)
    assert whole.columns == cut.columns
    assert (whole.columns["windows_total"], whole.columns["windows_scored"]) == (34, 32)
    for name in ("start_s", "end_s", "weight", "probabilities", "emotion", "confidence"):
        np.testing.assert_array_equal(getattr(whole.windows, name), getattr(cut.windows, name))
