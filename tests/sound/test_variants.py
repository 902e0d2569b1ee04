from __future__ import annotations

import pytest

from emolib.errors import SettingsError
from emolib.sound.variants import expand, learnt_copies, used_for


def test_telephone_is_one_line_and_telephones_are_several() -> None:
    assert expand(["telephone"]) == ("telephone1",)
    assert len(expand(["telephones"])) == 5


def test_copies_of_a_version_that_made_others_are_refused() -> None:
    with pytest.raises(SettingsError, match="'speed93' found in the store, expected some of clean, telephone1"):
        used_for("speed93", "training")
    with pytest.raises(SettingsError, match="speed93"):
        learnt_copies(["clean", "speed93"])
