"""The scikit-learn classifier on texts: its inputs, its state, its errors, and the tools that it works in."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import submillion
from submillion import SubmillionClassifier
from submillion.errors import BudgetError, ConfigError, DataError, ModelError, RunError

TEXTS = [f"the river bridge council {n} met" if n % 2 else f"a striker of {n} scored twice" for n in range(24)]
QUICK: dict[str, Any] = {"max_steps": 12, "batch_size": 8, "learning_rate": 5e-3, "max_length": 32}
# Two threads on a busy core wait for each other in every small product.
QUICK |= {"threads": 1, "random_state": 0}
# One validation, at the end.
QUICK_SETTINGS = {"model.precision": "fp32", "train.evaluate_every": 100, "train.save_every": 100}
LABELS = ["city" if n % 2 else "sport" for n in range(24)]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does with classifiers, no temporary folder is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def make(tiny_bert: Path) -> Callable[..., SubmillionClassifier]:
    """Return `make(**parameters)`: a classifier on a tiny base that fits in a few steps."""

    def build(**parameters: Any) -> SubmillionClassifier:
        settings = {**QUICK_SETTINGS, **parameters.pop("settings", {})}
        return SubmillionClassifier(**{**QUICK, "base": str(tiny_bert), **parameters}, settings=settings)

    return build


@pytest.fixture(scope="module")
def fitted(tiny_bert: Path) -> SubmillionClassifier:
    return SubmillionClassifier(**QUICK, base=str(tiny_bert), settings=QUICK_SETTINGS).fit(TEXTS, LABELS)


def test_it_learns_texts_and_says_what_it_trained(fitted: SubmillionClassifier) -> None:
    assert fitted.classes_.tolist() == ["city", "sport"]
    assert fitted.score(TEXTS, LABELS) > 0.9
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (24, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert fitted.predict(TEXTS).tolist() == [("city", "sport")[best] for best in probabilities.argmax(axis=1)]
    assert 0 < fitted.plan_.trainable_params < 1_000_000
    assert fitted.validation_["num_records"] == 2
    assert not hasattr(fitted, "n_features_in_")
    # Weighted: only a wrongly labelled row counts.
    assert fitted.score(TEXTS[:2], ["city", "city"], sample_weight=[1, 0]) == 0


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, lambda texts: np.array(texts, dtype=object)])
def test_texts_come_in_any_container(fitted: SubmillionClassifier, kind: Any) -> None:
    np.testing.assert_array_equal(fitted.predict_proba(kind(TEXTS[:4])), fitted.predict_proba(TEXTS[:4]))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([7, 3] * 12),
        [True, False] * 12,
        ["03", "3"] * 12,
        [("a", 1), ("b", 2)] * 12,
        [0, "zero"] * 12,
        pd.Series(["x", "y"] * 12, index=range(100, 124)),
        [" ", "  "] * 12,
    ],
    ids=["integers", "booleans", "digits", "tuples", "mixed", "series", "blanks"],
)
def test_labels_come_back_as_they_were_given(make: Callable[..., SubmillionClassifier], labels: Any) -> None:
    classifier = make().fit(TEXTS, labels)
    given = list(labels)
    predicted = classifier.predict(TEXTS).tolist()
    assert set(predicted) == set(given)
    kinds = {int if isinstance(label, np.integer) else type(label) for label in given}
    assert {type(label) for label in predicted} == kinds
    assert classifier.score(TEXTS, labels) > 0.9


def test_a_table_of_text_columns_keeps_its_columns(make: Callable[..., SubmillionClassifier], tmp_path: Path) -> None:
    table = pd.DataFrame({"title": TEXTS, "description": [text.upper() for text in TEXTS]})
    classifier = make().fit(table, LABELS)
    assert classifier.n_features_in_ == 2
    assert classifier.feature_names_in_.tolist() == ["title", "description"]
    assert classifier.score(table, LABELS) > 0.9
    joined = classifier.run_.load(None).classify([f"{TEXTS[0]} {TEXTS[0].upper()}"])[0]
    np.testing.assert_allclose(classifier.predict_proba(table[:1])[0], joined.probabilities, rtol=1e-4)
    with pytest.raises(DataError, match="is one text per row, fit had a table"):
        classifier.predict(TEXTS)
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(table[["description", "title"]])
    # The run knows the columns by name, so it can read a file that has other columns as well.
    saved = submillion.load(classifier.save_run(tmp_path / "run"))
    assert saved.config.data.text == ("title", "description")
    assert SubmillionClassifier.from_run(tmp_path / "run").n_features_in_ == 2
    # Fitted on single texts again, it forgets the table.
    classifier.fit(TEXTS, LABELS)
    assert not hasattr(classifier, "n_features_in_")


def test_pickles_hold_bytes_and_give_the_same_answers(fitted: SubmillionClassifier, tmp_path: Path) -> None:
    fitted.predict(TEXTS[:1])  # the model is in memory, and stays out of the pickle
    expected = fitted.predict_proba(TEXTS)
    content = pickle.dumps(fitted)
    assert b"torch" not in content.partition(b"config.yaml")[0]
    assert all(isinstance(value, bytes) for value in pickle.loads(content).run_.files.values())
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(TEXTS), expected)
    joblib.dump(fitted, tmp_path / "classifier.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "classifier.joblib").predict_proba(TEXTS), expected)


class OnlyOurs(pickle.Unpickler):
    """An unpickler that admits only the types that a pickled classifier may hold, and notes them."""

    def find_class(self, module: str, name: str) -> Any:
        assert module.split(".", maxsplit=1)[0] in {"submillion", "numpy", "builtins"}, f"{module}.{name}"
        return super().find_class(module, name)


def test_pickles_name_no_classes_of_others(fitted: SubmillionClassifier) -> None:
    assert OnlyOurs(io.BytesIO(pickle.dumps(fitted))).load().classes_.tolist() == ["city", "sport"]


def test_a_run_is_saved_for_the_commands_and_read_back(fitted: SubmillionClassifier, tmp_path: Path) -> None:
    folder = fitted.save_run(tmp_path / "run")
    assert not (folder / "checkpoints").exists()
    assert TEXTS[0] not in "".join(path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file())
    expected = fitted.predict_proba(TEXTS)
    classified = submillion.load(folder).classify(TEXTS)
    np.testing.assert_allclose([prediction.probabilities for prediction in classified], expected)
    again = SubmillionClassifier.from_run(folder)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)
    assert again.plan_ == fitted.plan_
    assert again.validation_ == fitted.validation_
    with pytest.raises(ConfigError, match="not an empty folder"):
        fitted.save_run(folder)
    with pytest.raises(RunError, match="not a finished run"):
        SubmillionClassifier.from_run(tmp_path)
    # What came from a run can be trained again with the run's settings.
    refitted = clone(again).fit(TEXTS, LABELS)
    assert refitted.run_.load(None).config.train == again.run_.load(None).config.train


def test_the_same_random_state_gives_the_same_numbers(make: Callable[..., SubmillionClassifier]) -> None:
    first, second, other = (make(random_state=seed, max_steps=3).fit(TEXTS, LABELS) for seed in (3, 3, 4))
    name = "adapter/adapter_model.safetensors"
    assert first.run_.files[name] == second.run_.files[name]
    assert first.run_.files[name] != other.run_.files[name]


def test_it_works_inside_cross_validation_grids_and_pipelines(make: Callable[..., SubmillionClassifier]) -> None:
    scores = cross_val_score(make(max_steps=6), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert scores.mean() > 0.7
    grid = GridSearchCV(
        make(), {"max_steps": [1, 12], "rank": np.array([1, 2])}, cv=StratifiedKFold(2), error_score="raise"
    )
    grid.fit(TEXTS, LABELS)
    assert grid.best_params_["max_steps"] == 12
    assert {module.rank for module in grid.best_estimator_.plan_.modules} == {grid.best_params_["rank"]}
    upper = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    assert make_pipeline(upper, make()).fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.9


def test_parameters_are_what_the_run_gets(make: Callable[..., SubmillionClassifier], tmp_path: Path) -> None:
    changed = {"budget": 9000, "targets": ("query",), "validation_size": 6, "epochs": 1, "max_steps": None}
    classifier = make(**changed, settings={"train.label_smoothing": 0.1, "adapter.bias": "lora_only"})
    classifier.fit(TEXTS, LABELS)
    config = submillion.load(classifier.save_run(tmp_path / "run")).config
    assert (config.budget, config.adapter.targets, config.train.epochs) == (9000, ("query",), 1)
    assert (config.train.label_smoothing, config.adapter.bias, config.train.max_steps) == (0.1, "lora_only", None)
    assert classifier.plan_.trainable_params < 9000
    assert classifier.plan_.bias_params > 0
    assert classifier.validation_["num_records"] == 6


def test_bad_parameters_are_refused_before_anything_is_trained(
    make: Callable[..., SubmillionClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submillion.api.train", lambda *_, **__: pytest.fail("a run was started"))
    with pytest.raises(BudgetError, match="not below the budget of 50"):
        make(budget=50).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="learning_rate"):
        make(learning_rate=-1.0).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match=r"did you mean 'label_smoothing'"):
        make(settings={"train.label_smothing": 0.1}).fit(TEXTS, LABELS)
    for path in ("data.labels", "seed", "final.report", "train.max_steps", "model.base"):
        with pytest.raises(ConfigError, match=f"'{path}' cannot be set here"):
            make(settings={path: 1}).fit(TEXTS, LABELS)
    with pytest.raises(ModelError):
        make(base="no-such-model").fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="unknown recipe"):
        make(recipe="no-such-recipe").fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("one text", ["a"], "is one text"),
        ([*TEXTS[:2], None], ["a", "b", "a"], "None"),
        (pd.DataFrame({"a": ["x", np.nan], "b": ["y", "z"]}), ["a", "b"], "NaN"),
        ([1.5, 2.5], ["a", "b"], r"row 0 holds 1.5 \(float\), which is not a text"),
        ([b"bytes", b"more"], ["a", "b"], "which is not a text"),
        (TEXTS[:3], ["a", "b", "a"], "class 'b' has only one row"),
        (TEXTS[:3], ["a", "a", "a"], "1 class"),
        (TEXTS[:3], ["a", "b", None], "row 2 holds None"),
        (TEXTS[:3], ["a", "b", float("nan")], "row 2 holds nan"),
        (TEXTS[:3], None, "y is None"),
        ([], [], "0 sample"),
        (TEXTS[:4], ["a", "b"], "inconsistent numbers of samples"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(
    make: Callable[..., SubmillionClassifier], texts: Any, labels: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make().fit(texts, labels)


def test_nothing_is_known_before_fit() -> None:
    for method in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(SubmillionClassifier(), method)(TEXTS)
    with pytest.raises(NotFittedError):
        SubmillionClassifier().save_run("nowhere")


def test_a_fit_that_fails_leaves_the_fitted_state_alone(
    make: Callable[..., SubmillionClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make(max_steps=1).fit(TEXTS, LABELS)
    before = classifier.run_
    with monkeypatch.context() as patch:
        patch.setattr("submillion.estimator.sum_saved_params", lambda _: 1)
        with pytest.raises(RunError, match="the files hold 1 trained parameters"):
            classifier.fit(TEXTS, LABELS)
    assert classifier.run_ is before
