"""`emolib demo`: the whole way on synthetic voices."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import pandas as pd
from upath import UPath

from emolib import archive
from emolib.corpora import labels
from emolib.errors import EmolibError
from emolib.learning.backend import require_backend
from emolib.learning.evaluation import metrics
from emolib.sound.synthetic import write_calls, write_corpus
from emolib.storage import new_folder, write_bytes, write_json
from jobs.bounds import Seed
from jobs.console import Result, say, table
from jobs.extract import extract
from jobs.options import Options
from jobs.report import report
from jobs.score import score
from jobs.train import train
from jobs.verify import verify

_SPEAKERS, _UTTERANCES, _CALLS, _BROKEN, _EPOCHS = 16, 6, 30, 5, 40
_TASK: Final = "emotion3"
# A window counts for the comparison if one emotion fills at least so much of it.
_FILLED = 0.5


def demo(*, out: str = "demo", seed: Seed = 0) -> Result:
    """See the whole way on synthetic voices: corpus, calls, training, labels, a page to look at.

    Source-filter voices with emotional prosody make a labelled corpus, and other voices make two-party calls, a few
    of them broken. The corpus is extracted, a model trained, the calls scored and verified, a page made. Nothing is
    downloaded.

    Parameters
    ----------
    out
        The folder to make.
    seed
        Other seeds give other voices.
    """
    began = time.monotonic()
    root = new_folder(out)
    require_backend()
    corpus, calls, store = root / "voices", root / "calls", root / "features.zarr"
    model, predictions, page = root / "model", root / "predictions", root / "page"
    say(f"1/6  voices: {_SPEAKERS} speakers for the corpus, others for {_CALLS} calls and {_BROKEN} broken files")
    write_corpus(corpus, speakers=_SPEAKERS, utterances=_UTTERANCES, seed=seed)
    truth = write_calls(calls, calls=_CALLS, broken=_BROKEN, seed=seed)
    write_bytes(root / "truth.csv", truth.to_csv(index=False).encode())
    say("2/6  extract: sound to features")
    extract([str(corpus)], store=str(store))
    say("3/6  train: features to a model")
    train(str(store), task=_TASK, model=str(model), epochs=_EPOCHS)
    say("4/6  score: calls to labels, customers only")
    # The budget: one in seven files of this archive is broken on purpose.
    options = Options(model=str(model), channels=("0=agent,1=customer",), failure_budget=0.2)
    scored = score(str(calls), out=str(predictions), options=options)
    say("5/6  verify: nothing lost, nothing twice")
    verified = verify(str(predictions))
    if verified.exit_code:
        raise EmolibError(f"{predictions} are not whole; expected a demo without damage")
    say("6/6  report")
    made = report(str(predictions), out=str(page))
    found = _compare(truth, archive.read(predictions, table="windows"), archive.read(predictions, table="recordings"))
    summary = {
        "job": "demo",
        "out": out,
        "page": made.summary["page"],
        "recordings": scored.summary["recordings"],
        "codes": scored.summary["codes"],
        "windows_compared": found["n"],
        "accuracy": round(found["accuracy"], 3),
        "uar": round(found["uar"], 3),
        "chance": round(1 / len(found["per_class"]), 3),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(root / "summary.json", summary)
    _say_where(root, summary)
    return Result(summary)


def _compare(truth: pd.DataFrame, windows: pd.DataFrame, recordings: pd.DataFrame) -> dict[str, Any]:
    """Print what the calls contain against what was scored, and return the metrics over windows."""
    spoken = truth.assign(corpus="demo", gender=None)
    scheme = labels.scheme(_TASK, spoken)
    classes = scheme.public_classes
    turns = truth.assign(
        true=[scheme.classes[number] for number in labels.label(truth.assign(corpus="demo", gender=None), scheme)]
    )
    placed = windows.merge(recordings[["recording_id", "uri"]], on="recording_id").reset_index(names="window")
    pairs = placed.merge(turns, on=["uri", "channel"], suffixes=("", "_turn"))
    overlap = pairs[["end_s", "end_s_turn"]].min(axis=1) - pairs[["start_s", "start_s_turn"]].max(axis=1)
    pairs = pairs.assign(share=overlap.clip(lower=0) / (pairs["end_s"] - pairs["start_s"]))
    filled = pairs.groupby(["window", "true"], as_index=False).agg(
        share=("share", "sum"), predicted=("emotion", "first")
    )
    filled = filled[filled["share"] > _FILLED]
    found = metrics(filled, classes)
    rows = [
        [name, *counts, each["recall"]]
        for name, counts, each in zip(classes, found["confusion"], found["per_class"].values(), strict=True)
    ]
    table(
        f"What customers' windows contain (rows) against what was scored (columns); chance is {1 / len(classes):.2f}",
        ["contains", *classes, "recall"],
        rows,
    )
    say(f"{found['n']} windows of speakers the model never heard: UAR {found['uar']:.2f}")
    return found


def _say_where(root: UPath, summary: dict[str, Any]) -> None:
    query = f"import pandas; print(pandas.read_parquet('{root}/predictions/channels'))"
    places = {
        "the calls as a page": summary["page"],
        "what the model is, and is not": root / "model" / "card.html",
        "a table, queried": f'{sys.executable} -c "{query}"',
        "calls, and what they contain": f"{root / 'calls'}, {root / 'truth.csv'}",
        "sound to features (Zarr)": root / "features.zarr",
    }
    say("Open next:")
    for name, place in places.items():
        say(f"  {name:30} {place}")
