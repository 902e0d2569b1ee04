from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists

from emolib.config import PROFILES, Profile
from emolib.learning.recipes import RECIPES


def test_small_corpora_are_shown_more_often_but_never_without_end() -> None:
    corpora = pd.Series(["large"] * 4000 + ["half"] * 2000 + ["tiny"])
    times = RECIPES["default"].times(corpora, np.random.default_rng(0))
    found = pd.Series(times).groupby(corpora).agg(["min", "max", "mean"])
    assert found.loc["large"].tolist() == [1, 1, 1]
    assert found.loc["half", ["min", "max"]].tolist() == [1, 2]
    assert found.loc["half", "mean"] == pytest.approx(2**0.7, abs=0.05)
    assert found.loc["tiny", "mean"] in (10, 11)
    assert (RECIPES["article"].times(corpora, np.random.default_rng(0)) == 1).all()


@given(counts=lists(integers(1, 10_000), min_size=4, max_size=20), even_words=booleans())
def test_classes_or_words_weigh_the_same_unless_they_are_very_rare(counts: list[int], even_words: bool) -> None:
    rows, class_of = np.array([0, *counts]), [0, 0, 0, *[1] * (len(counts) - 2)]
    recipe = replace(RECIPES["default"], even_words=even_words)
    share = rows * recipe.weights(rows, class_of) / rows.sum()
    rare = share < 0.999 * np.where(
        even_words, 1 / len(counts), [0.25] * 3 + [0.5 / (len(counts) - 2)] * (len(counts) - 2)
    )
    assert share[0] == 0
    np.testing.assert_allclose(recipe.weights(rows, class_of)[1:][rare[1:]], 10)
    if not rare[1:].any():
        assert share.sum() == pytest.approx(1, rel=1e-5)
        assert share[:3].sum() == pytest.approx(2 / len(counts) if even_words else 0.5, rel=1e-5)


def test_voices_stay_near_and_networks_grow_where_speakers_are_known() -> None:
    default = RECIPES["default"]
    wide = default.adapted(speaker_dependent=False, tells_gender=False)
    near = default.adapted(speaker_dependent=True, tells_gender=False)
    telling = default.adapted(speaker_dependent=False, tells_gender=True)
    assert near == replace(telling, even_words=True, filters=96)
    assert wide.filters == telling.filters == 64
    assert wide.voices().min() == pytest.approx(1 / wide.voices().max())
    assert near.voices().max() < 1.08 < wide.voices().max()
    assert wide.augmentation.style > near.augmentation.style == 0
    for each in (wide, near):
        assert np.isclose(each.voices(), 1.0).any()
    assert len(RECIPES["article"].voices()) == 0


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_rows_are_cropped_to_the_same_seconds_in_every_profile(profile: Profile) -> None:
    frames = RECIPES["default"].frames(profile)
    features = profile.features
    assert frames * features.hop_length / features.sampling_rate == pytest.approx(2.4, abs=0.02)
