"""What needs TensorFlow, in one file: it takes long to start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from emolib.corpora import labels as schemes, splits
from emolib.errors import EmolibError, GoldenCheckError, SettingsError
from emolib.features.store import FeatureStore
from emolib.learning import bundle as bundles, calibration
from emolib.learning.bundle import ModelBundle
from emolib.learning.crossvalidation import cross_validate
from emolib.learning.progress import Progress
from emolib.learning.promise import further_speakers
from emolib.learning.recipes import RECIPES
from emolib.storage import read_json, write_json
from tests.jobs.conftest import run_emolib
from tests.learning.conftest import COEFFICIENTS, FRAMES, PROFILE, MakeStore

if TYPE_CHECKING:
    from emolib.learning.training import Trained

pytestmark = pytest.mark.slow
CLASSES = 3


@pytest.fixture(scope="module", autouse=True)
def _tensorflow(training: None) -> None:
    """Import what needs TensorFlow when a test runs: importing it takes ten seconds of every process that collects."""
    global fitting, keras, networks
    import keras

    from emolib.learning import model as networks, training as fitting


def _split(store: FeatureStore, task: str) -> tuple[schemes.LabelScheme, NDArray[np.int64], NDArray[np.bool_]]:
    """Return the scheme, each row's class, and the rows to validate with."""
    windows = store.windows
    scheme = schemes.scheme(task, windows)
    labels = schemes.label(windows, scheme)
    return scheme, labels, splits.validation(windows, labels, np.ones(len(windows), bool), seed=0)


def _fit(store: FeatureStore, task: str = "native", **options: Any) -> Trained:
    scheme, labels, validation = _split(store, task)
    asked = {"train": ~validation, "validation": validation, "architecture": "article", "seed": 0, **options}
    return fitting.fit(store, scheme=scheme, labels=labels, **asked)


def _untrained(architecture: str) -> Any:
    return networks.build(
        architecture,
        profile=PROFILE,
        words=(0, 0, 1, 2),
        classes=CLASSES,
        mean=np.arange(COEFFICIENTS, dtype=np.float32),
        scale=np.full(COEFFICIENTS, 2.0, np.float32),
        filters=64,
        seed=1,
    )


def _windows(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((count, FRAMES, COEFFICIENTS), np.float32)
    return features, generator.integers(1, FRAMES + 1, count).astype(np.int32)


@pytest.fixture(scope="module")
def store(make_store: Callable[..., FeatureStore]) -> FeatureStore:
    return make_store(bad=5)


@pytest.fixture(scope="module")
def trained_article(store: FeatureStore) -> Trained:
    return _fit(store, epochs=12)


@pytest.fixture(scope="module")
def trained_default(store: FeatureStore) -> Trained:
    return _fit(store, architecture="default", epochs=6)


@pytest.fixture(scope="module")
def article(trained_article: Trained, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return bundles.save(tmp_path_factory.mktemp("article"), trained_article)


@pytest.fixture(scope="module")
def default(trained_default: Trained, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return bundles.save(tmp_path_factory.mktemp("default"), trained_default)


@pytest.fixture(params=RECIPES)
def trained(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"trained_{request.param}")


@pytest.fixture
def bundle(trained: Trained, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(trained.model.name)


@pytest.fixture
def copy(article: ModelBundle, tmp_path: Path) -> Path:
    """A copy of a bundle that a test may damage."""
    for file in Path(article.path).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# ---- Networks


def test_deltas_are_slope_and_curvature() -> None:
    time = np.arange(20, dtype=np.float32)
    found = np.asarray(networks.Deltas()((time**2)[np.newaxis, :, np.newaxis]))[0, 4:-4]
    np.testing.assert_allclose(found, np.stack([time**2, 8 * time, np.full(20, 20.0)], axis=1)[4:-4], atol=1e-2)


def test_aligned_windows_begin_with_speech_and_have_one_level() -> None:
    model, (features, valid_frames) = _untrained("default"), _windows(16)
    features[:, :, 0] += 100.0 * np.random.default_rng(1).standard_normal((16, 1))
    features[:, :10, 0] -= 1000.0  # silence
    valid_frames = np.maximum(valid_frames, 20)
    moved, lengths = networks.aligned(model, features, valid_frames)
    assert (lengths <= valid_frames - 10).all()
    speech = np.arange(FRAMES) < lengths[:, np.newaxis]
    np.testing.assert_allclose(moved[:, :, 0].sum(axis=1, where=speech), 0.0, atol=1e-2)


def test_default_network_does_not_see_padding() -> None:
    model, (features, valid_frames) = _untrained("default"), _windows(16)
    other = features.copy()
    other[np.arange(FRAMES) >= valid_frames[:, np.newaxis]] = 1000.0
    outputs = [model.predict_on_batch({"features": each, "valid_frames": valid_frames}) for each in (features, other)]
    np.testing.assert_array_equal(*outputs)


def test_the_shortest_speech_is_seen_wherever_it_lies() -> None:
    """Frames are pooled eight by eight: a burst must count whichever of the eight it falls on."""
    features = np.zeros((8, FRAMES, COEFFICIENTS), np.float32)
    features[:, :, 0] = -1000.0
    for place in range(8):
        features[place, 16 + place] = 1.0
    seen = networks.AttentiveStatistics(stride=8, units=4)
    speech = np.asarray(networks.Speech(range=30.0)(features, np.full(8, FRAMES, np.int32)))
    pooled = np.asarray(seen(np.ones((8, -(-FRAMES // 8), 2), np.float32), speech))
    np.testing.assert_allclose(pooled[:, :2], 1.0)


def test_a_class_is_as_likely_as_its_words_together() -> None:
    features, valid_frames = _windows(8)
    model = _untrained("default")
    inputs = {"features": features, "valid_frames": valid_frames}
    words = networks.learner(model).predict_on_batch(inputs)
    assert words.shape == (8, 4)
    expected = np.stack([words[:, 0] + words[:, 1], words[:, 2], words[:, 3]], axis=1)
    np.testing.assert_allclose(model.predict_on_batch(inputs), expected, rtol=1e-6)


def test_seed_decides_the_weights() -> None:
    first, again = (_untrained("default").get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(SettingsError, match="default, article"):
        _untrained("transformer")


# ---- Training


def test_learns_and_says_from_what(trained: Trained, store: FeatureStore) -> None:
    again = trained.training["recipe"]["learn_again"]
    epochs = (2 if again else 1) * trained.training["epochs"]
    assert [(entry["epoch"], entry["epochs"]) for entry in trained.history] == [(n + 1, epochs) for n in range(epochs)]
    assert sum("val_uar" in entry for entry in trained.history) == trained.training["epochs"]
    assert trained.metrics["uar"] > 0.8
    assert trained.metrics["n"] == trained.training["validation"]["utterances"] == len(trained.validation) > 0
    assert trained.training["store_fingerprint"] == store.fingerprint
    assert trained.training["validation"]["speakers"] == len(trained.training["validation_speakers"]) < 6
    windows = [trained.training[part]["windows"] for part in (("train", "validation") if again else ("train",))]
    assert sum(trained.training["class_windows"].values()) == sum(windows)
    assert trained.training["variants"] == ["clean"]


def test_probabilities_are_softened_by_what_the_validation_windows_say(trained: Trained, store: FeatureStore) -> None:
    _, labels, validation = _split(store, "native")
    rows = np.flatnonzero(validation & (store.status() == 1))
    probabilities, truth, speakers = trained.windows
    np.testing.assert_array_equal(truth, labels[rows])
    raw = calibration.soften(probabilities, 1 / trained.temperature)
    if not trained.training["recipe"]["learn_again"]:
        raw, _ = fitting.predict(trained.model, store, rows)
        np.testing.assert_allclose(probabilities, calibration.soften(raw, trained.temperature), atol=1e-6)

    def loss(temperature: float) -> float:
        return float(-np.log(calibration.soften(raw, temperature)[np.arange(len(truth)), truth]).mean())

    assert loss(trained.temperature) <= min(loss(trained.temperature * 1.1), loss(trained.temperature / 1.1))
    assert sorted(set(speakers)) == trained.training["validation_speakers"]
    confidence, correct = trained.windows.confidence()
    np.testing.assert_array_equal(confidence, probabilities.max(axis=1))
    assert correct.mean() == np.mean(probabilities.argmax(axis=1) == truth)


def test_who_validates_is_learnt_from_only_after_that(store: FeatureStore, trained_default: Trained) -> None:
    """Were their labels others, they would change what is learnt, but not what is said of them before."""
    scheme, labels, validation = _split(store, "native")
    rows = np.flatnonzero(validation & (labels >= 0))
    labels[rows] = (labels[rows] + 1) % CLASSES
    asked = {"train": ~validation, "validation": validation, "architecture": "default", "seed": 0, "epochs": 6}
    wrong = fitting.fit(store, scheme=scheme, labels=labels, **asked)
    said = [calibration.soften(each.windows.probabilities, 1 / each.temperature) for each in (trained_default, wrong)]
    np.testing.assert_allclose(*said, atol=1e-5)
    losses = [[entry["loss"] for entry in each.history] for each in (trained_default, wrong)]
    assert losses[0][:6] == losses[1][:6]
    assert losses[0][6:] != losses[1][6:]
    weights = [each.model.get_weights() for each in (trained_default, wrong)]
    assert not all(np.array_equal(*pair) for pair in zip(*weights, strict=True))


def test_standardises_by_the_real_frames_of_the_training_rows(store: FeatureStore, trained_article: Trained) -> None:
    _, _, validation = _split(store, "native")
    good = ~validation & (store.status() == 1)
    features, valid_frames = store.read(0, store.shape[0])
    real = np.arange(FRAMES) < valid_frames[good][:, np.newaxis]
    mean, scale = trained_article.model.get_layer("standardize").get_weights()
    np.testing.assert_allclose(mean, features[good][real].mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(scale, features[good][real].std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("architecture", ["default", "article"])
def test_same_seed_gives_the_same_weights(
    store: FeatureStore, architecture: str, request: pytest.FixtureRequest
) -> None:
    first = request.getfixturevalue(f"trained_{architecture}")
    again = _fit(store, architecture=architecture, epochs={"default": 6, "article": 12}[architecture])
    pairs = zip(first.model.get_weights(), again.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


class _KilledError(Exception):
    """Stands for the end of a process: nothing catches it."""


@pytest.mark.parametrize(
    ("expected", "last"),
    [("trained_default", 4), ("trained_default", 9), ("checked_default", 14), ("trained_article", 4)],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    store: FeatureStore, expected: str, last: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole = request.getfixturevalue(expected)
    asked = {
        "architecture": whole.model.name,
        "epochs": whole.training["epochs"],
        "checkpoint": tmp_path / "training",
        "further": None if whole.further is None else _further(store, _split(store, "native")[2]),
    }

    def die(entry: dict[str, float]) -> None:
        if entry["epoch"] == last:
            raise _KilledError

    with pytest.raises(_KilledError):
        _fit(store, **asked, on_epoch=die)
    seen: list[float] = []
    again = _fit(store, **asked, on_epoch=lambda entry: seen.append(entry["epoch"]))
    networks_trained = (2 if whole.training["recipe"]["learn_again"] else 1) + (whole.further is not None)
    assert seen == list(range(last + 1, networks_trained * whole.training["epochs"] + 1))
    assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in whole.history]
    pairs = zip(whole.model.get_weights(), again.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert again.temperature == whole.temperature
    for part in ("windows", "further"):
        found, there = getattr(again, part), getattr(whole, part)
        assert (found is None) == (there is None)
        if found is not None:
            np.testing.assert_array_equal(found.probabilities, there.probabilities)


def test_a_checkpoint_of_another_training_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    _fit(store, epochs=1, checkpoint=tmp_path / "training")
    with pytest.raises(SettingsError, match="seed is 0, expected 1"):
        _fit(store, epochs=1, seed=1, checkpoint=tmp_path / "training")


def test_a_checkpoint_of_another_store_is_refused(store: FeatureStore, make_store: MakeStore, tmp_path: Path) -> None:
    _fit(store, epochs=1, checkpoint=tmp_path / "training")
    with pytest.raises(SettingsError, match="store_windows is "):
        _fit(make_store(utterances=11), epochs=1, checkpoint=tmp_path / "training")


def test_a_class_without_rows_is_left_unlearnt(store: FeatureStore) -> None:
    female = (store.windows["gender"] == "female").to_numpy()
    speaker = (store.windows["speaker"] == "s0").to_numpy()
    fitted = _fit(store, "emotion2", train=female & ~speaker, validation=female & speaker, epochs=10)
    assert fitted.training["class_windows"]["male_neutral"] == 0
    assert fitted.priors[list(fitted.scheme.classes).index("male_neutral")] == 0
    assert fitted.metrics["uar"] > 0.5


def test_a_model_says_which_mixture_it_takes_for_granted(store: FeatureStore) -> None:
    scheme, labels, validation = _split(store, "emotion2")
    learnt = store.windows.assign(number=labels)[~validation & (labels >= 0)].drop_duplicates(["number", "emotion"])
    for even in (False, True):
        fitted = _fit(store, "emotion2", architecture="default", epochs=1, speaker_dependent=even)
        told = learnt if even else learnt.drop_duplicates("number")
        shares = told["number"].value_counts(normalize=True).reindex(range(len(scheme.classes)), fill_value=0.0)
        assert fitted.priors == pytest.approx(shares.to_numpy(), abs=1e-6)
        assert fitted.training["recipe"]["even_words"] == even


def test_a_class_that_only_those_set_aside_say_is_learnt_but_not_judged(store: FeatureStore) -> None:
    scheme, labels, validation = _split(store, "native")
    labels[~validation & (labels == 2)] = -1
    asked = {"train": ~validation, "validation": validation, "architecture": "default", "seed": 0, "epochs": 3}
    fitted = fitting.fit(store, scheme=scheme, labels=labels, **asked)
    assert fitted.training["class_windows"][scheme.classes[2]] > 0
    assert fitted.priors[2] == pytest.approx(1 / CLASSES)
    assert set(fitted.windows.truth) == {0, 1}
    assert fitted.temperature < 5  # one right answer that is thought impossible would make it the highest there is


def test_one_class_or_no_validation_is_refused(store: FeatureStore) -> None:
    anger, nothing = (store.windows["emotion"] == "anger").to_numpy(), np.zeros(store.shape[0], bool)
    with pytest.raises(SettingsError, match=r"anger; expected at least two"):
        _fit(store, train=anger)
    with pytest.raises(SettingsError, match="validate"):
        _fit(store, validation=nothing)


def test_cross_validation_tests_every_utterance_once(make_store: Callable[..., FeatureStore]) -> None:
    store, names = make_store(speakers=3, bad=5), []
    found = cross_validate(
        store,
        task="emotion3",
        protocol="grouped",
        architecture="article",
        seed=0,
        epochs=2,
        on_fold=lambda fold: names.append(fold.name),
    )
    windows, good = store.windows, store.status() == 1
    tested = found.predictions["utterance_id"]
    assert tested.is_unique
    assert set(tested) == set(windows.loc[good, "utterance_id"])
    assert sum(found.left_out.values()) == windows["utterance_id"].nunique() - len(tested)
    assert set(found.left_out) <= {"corrupt"}
    assert found.speaker_independent
    assert names == [fold.name for fold in found.folds] == ["1", "2", "3"]
    for fold in found.folds:
        parts = (fold.train, fold.validation, fold.test)
        assert sum(part["speakers"] for part in parts) == 3
        assert sum(part["windows"] for part in parts) == good.sum()
    report = json.loads(json.dumps(found.report()))
    assert report["pooled"]["n"] == len(tested)
    assert report["protocol"] == "grouped"


def test_folds_that_do_not_say_of_what_are_not_taken(tmp_path: Path) -> None:
    """They are left of an evaluation that was written, and killed while it removed them."""
    (tmp_path / "_folds").mkdir()
    (tmp_path / "_folds" / "0.json").write_text("{}")
    assert Progress(tmp_path, {"seed": 7}).load(0) is None


def test_an_interrupted_cross_validation_goes_on(make_store: Callable[..., FeatureStore], tmp_path: Path) -> None:
    asked = {"task": "emotion3", "protocol": "grouped", "architecture": "article", "seed": 0, "epochs": 3}
    store = make_store(speakers=3)
    expected = cross_validate(store, **asked)

    def interrupt(entry: dict[str, float]) -> None:
        seen.append(entry["epoch"])
        if len(seen) == 5:  # in the middle of the second fold
            raise KeyboardInterrupt

    seen: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        cross_validate(store, **asked, progress=Progress(tmp_path, asked), on_epoch=interrupt)
    left: list[float] = []
    progress = Progress(tmp_path, asked)
    found = cross_validate(store, **asked, progress=progress, on_epoch=lambda entry: left.append(entry["epoch"]))
    assert seen + left == [1, 2, 3] * 3
    pd.testing.assert_frame_equal(found.predictions, expected.predictions)
    reports = [found.report(), expected.report()]
    for report in reports:
        for fold in report["folds"]:
            del fold["seconds"]
    assert reports[0] == reports[1]
    with pytest.raises(SettingsError, match=r"another evaluation: .*seed"):
        Progress(tmp_path, {**asked, "seed": 1})
    progress.remove()
    assert not list(tmp_path.iterdir())


# ---- A promise of precision


def _further(store: FeatureStore, validation: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, _ = _split(store, "native")
    chosen = further_speakers(store.windows, labels, ~validation, seed=0)
    assert chosen is not None
    return chosen


@pytest.fixture(scope="module")
def checked_default(store: FeatureStore) -> Trained:
    """As `trained_default`, and one more network that judges further speakers."""
    _, _, validation = _split(store, "native")
    return _fit(store, architecture="default", epochs=6, further=_further(store, validation))


def test_checking_a_promise_changes_nothing_of_the_model(trained_default: Trained, checked_default: Trained) -> None:
    pairs = zip(trained_default.model.get_weights(), checked_default.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert checked_default.temperature == trained_default.temperature
    np.testing.assert_array_equal(checked_default.windows.probabilities, trained_default.windows.probabilities)
    assert [each["loss"] for each in checked_default.history] == [each["loss"] for each in trained_default.history]
    assert checked_default.training == trained_default.training
    assert trained_default.further is None


def test_further_speakers_are_judged_by_a_network_that_never_heard_them(
    store: FeatureStore, checked_default: Trained
) -> None:
    """Were their labels others, the same would be said of them, although the model has learnt from them."""
    scheme, labels, validation = _split(store, "native")
    further = _further(store, validation)
    labels[further] = (labels[further] + 1) % CLASSES
    asked = {"train": ~validation, "validation": validation, "architecture": "default", "seed": 0, "epochs": 6}
    wrong = fitting.fit(store, scheme=scheme, labels=labels, further=further, **asked)
    weights = zip(wrong.model.get_weights(), checked_default.model.get_weights(), strict=True)
    assert not all(np.array_equal(a, b) for a, b in weights)
    assert checked_default.further is not None
    assert wrong.further is not None
    said = [calibration.soften(each.further.probabilities, 1 / each.temperature) for each in (checked_default, wrong)]
    np.testing.assert_allclose(*said, atol=1e-5)
    names = set(checked_default.further.speakers)
    assert len(names) > 1
    assert not names & set(checked_default.windows.speakers)


@pytest.mark.parametrize("architecture", ["article", "default"])
def test_the_card_says_that_a_promise_does_not_hold_for_further_speakers(
    make_store: MakeStore, architecture: str, tmp_path: Path
) -> None:
    """Threshold and temperature of speakers who are told with ease, and further ones whom nobody tells."""
    plain = make_store(speakers=12)
    _, _, validation = _split(plain, "native")
    further = plain.windows[_further(plain, validation)]
    hard = make_store(speakers=12, hard=set(further["speaker"]))
    asked = ("--task", "native", "--architecture", architecture, "--epochs", "10", "--precision", "0.9")
    ended = run_emolib("train", str(hard.path), *asked, "--model", tmp_path / "M")
    assert ended.exit_code == 0
    promise = read_json(tmp_path / "M" / "bundle.json")["promise"]
    assert promise == ended.summary["promise"] == read_json(tmp_path / "M" / "card.json")["promise"]
    assert promise["verdict"] == "not kept"
    assert promise["threshold"] == ModelBundle.load(tmp_path / "M").abstention_threshold
    assert promise["chosen"]["precision"] >= promise["wanted"] == 0.9
    assert promise["checked"]["precision"] < 0.5
    assert promise["checked"]["windows"] == len(further)
    assert promise["checked"]["speakers"] == sorted(set(further["corpus"] + "/" + further["speaker"]))
    page = (tmp_path / "M" / "card.html").read_text()
    for part in ("Promised: 90.0 %", "The promise is not kept", *promise["checked"]["speakers"]):
        assert part in page


def test_the_card_says_that_a_promise_is_kept_or_was_not_validated(make_store: MakeStore, tmp_path: Path) -> None:
    asked = ("--task", "native", "--architecture", "article", "--epochs", "10", "--precision", "0.9")
    for speakers, verdict, said in (
        (12, "kept", "The promise is kept by these speakers"),
        (4, "not validated", "Not validated: too few speakers"),
    ):
        place = tmp_path / f"{speakers}"
        ended = run_emolib("train", str(make_store(speakers=speakers).path), *asked, "--model", place)
        assert ended.summary["promise"]["verdict"] == verdict
        assert said in (place / "card.html").read_text()
    assert ended.summary["promise"]["checked"] is None


def test_a_card_without_a_promise_says_so(make_store: MakeStore, tmp_path: Path) -> None:
    asked = ("--task", "native", "--epochs", "1")
    ended = run_emolib("train", str(make_store(speakers=4).path), *asked, "--model", tmp_path / "M")
    assert ended.summary["promise"] is None
    page = (tmp_path / "M" / "card.html").read_text()
    assert "None: every window gets a label" in page
    assert "How far they hold for this one was not measured" in page


# ---- Bundles


def test_bundle_gives_the_numbers_of_the_network(bundle: ModelBundle, trained: Trained) -> None:
    features, valid_frames = _windows(100)
    expected = trained.model.predict_on_batch({"features": features, "valid_frames": valid_frames})
    expected = calibration.soften(expected, trained.temperature)
    np.testing.assert_allclose(bundle.predict(features, valid_frames), expected, atol=2e-5)
    assert bundle.classes == trained.scheme.classes == ("anger", "happiness", "neutral")
    assert bundle.scheme.public_polarity == {"anger": "negative", "happiness": "positive", "neutral": "neutral"}
    assert bundle.profile == trained.profile
    assert bundle.metrics == trained.metrics
    assert bundle.predict(features[:0], valid_frames[:0]).shape == (0, 3)


def test_a_window_is_alone_whatever_the_batch(bundle: ModelBundle) -> None:
    features, valid_frames = _windows(131)
    expected = bundle.predict(features, valid_frames)
    order = np.random.default_rng(1).permutation(131)
    np.testing.assert_array_equal(bundle.predict(features[order], valid_frames[order]), expected[order])
    for batch in (1, 3, 7, 64, 200):
        np.testing.assert_array_equal(bundle.predict(features, valid_frames, batch=batch), expected)
        alone = [
            bundle.predict(features[start : start + batch], valid_frames[start : start + batch])
            for start in range(0, 131, batch)
        ]
        np.testing.assert_array_equal(np.concatenate(alone), expected)


def test_keras_file_is_the_model(bundle: ModelBundle) -> None:
    features, valid_frames = _windows(10)
    model = keras.models.load_model(Path(bundle.path) / "model.keras")
    found = model.predict_on_batch({"features": features, "valid_frames": valid_frames})
    softened = calibration.soften(found, bundle.temperature)
    np.testing.assert_allclose(softened, bundle.predict(features, valid_frames), atol=2e-5)
    assert networks.to_onnx(model)


def test_exporting_again_to_a_url_gives_the_same_model(trained_article: Trained, article: ModelBundle) -> None:
    there = bundles.save("memory://models/article", trained_article)
    assert there.model_id == article.model_id
    there.check_golden()
    np.testing.assert_array_equal(there.predict(*_windows(5)), article.predict(*_windows(5)))
    with pytest.raises(SettingsError, match="exists"):
        bundles.save("memory://models/article", trained_article)


def test_temperature_softens(copy: Path) -> None:
    features, valid_frames = _windows(20)
    bundle = ModelBundle.load(copy)
    bundle.temperature = 1.0
    plain = bundle.predict(features, valid_frames)
    bundle.temperature = 2.0
    soft = bundle.predict(features, valid_frames)
    np.testing.assert_allclose(soft.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(soft.argmax(axis=1), plain.argmax(axis=1))
    assert (soft.max(axis=1) <= plain.max(axis=1)).all()


def test_golden_check_finds_a_machine_that_computes_otherwise(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.check_golden()
    honest = bundles.windowed_features

    def other(*args: Any, **options: Any) -> Any:
        found = honest(*args, **options)
        return replace(found, features=found.features + np.float32(0.01))

    monkeypatch.setattr(bundles, "windowed_features", other)
    with pytest.raises(GoldenCheckError, match=r"features .* deviate by 0\.01"):
        bundle.check_golden()


def test_twin_that_differs_is_not_saved(
    trained_article: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = networks.to_onnx(_untrained("article"))
    monkeypatch.setattr("emolib.learning.model.to_onnx", lambda model: other)
    with pytest.raises(EmolibError, match="deviate from Keras"):
        bundles.save(tmp_path / "model", trained_article)
    assert not (tmp_path / "model").exists()


def test_bundle_cut_off_while_it_was_written_does_not_load(
    trained_article: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "write_json", crash)
    with pytest.raises(KeyboardInterrupt):
        bundles.save(tmp_path, trained_article)
    with pytest.raises(SettingsError, match="not found"):
        ModelBundle.load(tmp_path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _change(path: Path, **values: Any) -> None:
    write_json(path, {**read_json(path), **values})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "bundle.json").unlink(), "emolib train"),
        (lambda path: (path / "model.onnx").unlink(), "is missing"),
        (lambda path: _cut(path / "model.onnx"), "not the file"),
        (lambda path: _cut(path / "bundle.json"), "not valid JSON"),
        (lambda path: _change(path / "bundle.json", schema_version=99), "schema version 99, expected 2"),
        (lambda path: _change(path / "bundle.json", temperature=7.0), "was changed"),
        (lambda path: _change(path / "bundle.json", colour="red"), "colour"),
    ],
)
def test_damaged_bundle_is_refused_in_one_line(copy: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copy)
    with pytest.raises(SettingsError, match=message) as caught:
        ModelBundle.load(copy)
    assert "\n" not in str(caught.value)


def test_damaged_golden_set_is_refused(copy: Path) -> None:
    _cut(copy / "golden.npz")
    with pytest.raises(SettingsError, match=r"golden\.npz"):
        ModelBundle.load(copy).check_golden()


def test_folder_that_holds_something_is_refused(trained_article: Trained, copy: Path) -> None:
    with pytest.raises(SettingsError, match="exists"):
        bundles.save(copy, trained_article)
    (copy / bundles.CHECKPOINT).mkdir()
    with pytest.raises(SettingsError, match="exists"):
        bundles.save(copy, trained_article)


@pytest.mark.parametrize("name", ["training/clip.wav", "notes.txt"])
def test_what_is_not_of_a_training_is_never_written_over(trained_article: Trained, tmp_path: Path, name: str) -> None:
    (tmp_path / bundles.CHECKPOINT).mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(SettingsError, match="exists"):
        bundles.save(tmp_path, trained_article)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_save_that_was_killed_is_done_again(trained_article: Trained, copy: Path) -> None:
    (copy / bundles.CHECKPOINT).mkdir()
    (copy / bundles.CHECKPOINT / "apart.npz").write_bytes(b"")
    (copy / "model.onnx").write_bytes(b"half of it")
    (copy / "bundle.json").unlink()
    bundles.save(copy, trained_article).check_golden()
    assert not (copy / bundles.CHECKPOINT).exists()
