"""The page: one file that needs nothing else and says what became of every recording."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emolib import archive
from tests.jobs.conftest import run_emolib


def test_one_page_with_everything_in_it(undisturbed: Path, tmp_path: Path) -> None:
    ended = run_emolib("report", undisturbed, "--out", tmp_path / "page")
    assert (ended.exit_code, ended.summary["page"]) == (0, str(tmp_path / "page" / "index.html"))
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"<script|<link|src=|@import", page)
    recordings = archive.read(undisturbed, table="recordings")
    for row in recordings.itertuples():
        assert row.uri in page
        assert row.code in page
    assert "&lt;!DOCTYPE html&gt;" in page  # a text page named .wav is quoted in its message, and only quoted


def test_the_page_estimates_how_frequent_emotions_are_in_a_form_that_scoring_takes(
    undisturbed: Path, calls: Path, model: Path, tmp_path: Path
) -> None:
    assert run_emolib("report", undisturbed, "--out", tmp_path / "page").exit_code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "How frequent the emotions are" in page
    found = re.search(r"--priors (\S+)</code>", page)
    assert found is not None
    priors = {name: float(share) for name, share in (each.split("=") for each in found[1].split(","))}
    assert sum(priors.values()) == pytest.approx(1, abs=1e-6)
    assert min(priors.values()) >= 0.001  # with a share of nothing an emotion could never be found again
    planned = run_emolib("score", calls, "--model", model, "--out", tmp_path / "P", "--plan", "--priors", found[1])
    assert planned.exit_code == 0
