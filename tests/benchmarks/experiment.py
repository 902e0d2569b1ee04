"""Train a network as it is and judge it on the speakers that experiments may look at.

    python -m tests.benchmarks.experiment S.zarr --task emotion8 [--seed 0] [--epochs 24]

S.zarr is a store of RAVDESS, alone or with other corpora. Eight actors (four women, four men) are set aside; everything
else is learnt from, as `emolib train` would. What was tried so, and what it gave, stands in experiments.md beside this
file. The figures of `emolib evaluate` are no experiments: nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from emolib.corpora import labels as schemes
from emolib.features.store import FeatureStore
from emolib.learning import training
from emolib.learning.batches import InMemory, usable_rows
from emolib.learning.evaluation import metrics, utterance_predictions
from emolib.sound.variants import used_for

ACTORS = ("03", "04", "08", "09", "13", "18", "21", "22")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.experiment", description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--task", default="emotion8")
    parser.add_argument("--architecture", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    store = FeatureStore.open(options.store)
    windows = store.windows
    scheme = schemes.scheme(options.task, windows)
    labels = np.where(usable_rows(store), schemes.label(windows, scheme), -1)
    aside = (windows["corpus"].eq("ravdess") & windows["speaker"].isin(ACTORS)).to_numpy()
    trained = training.fit(
        store,
        scheme=scheme,
        labels=labels,
        train=~aside,
        validation=aside,
        architecture=options.architecture,
        seed=options.seed,
        epochs=options.epochs,
        on_epoch=lambda entry: print(json.dumps(entry), flush=True),
    )
    judged = np.array([used_for(variant, "judging") for variant in windows["variant"]])
    rows = np.flatnonzero(aside & judged & (labels >= 0))
    table = utterance_predictions(
        windows.iloc[rows],
        labels[rows],
        *training.predict(trained.model, InMemory(store), rows),
        classes=scheme.classes,
    )
    last = [entry["val_uar"] for entry in trained.history[-4:]]
    found = {
        "uar": round(trained.metrics["uar"], 3),
        "mean_of_last_four_epochs": round(float(np.mean(last)), 3),
        "temperature": round(trained.temperature, 2),
        "uar_by_variant": {
            name: round(metrics(part, scheme.classes)["uar"], 3) for name, part in table.groupby("variant")
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
