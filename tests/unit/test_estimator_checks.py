"""scikit-learn's checks of estimators: those that also work on numbers, and all of them with numbers as words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from submillion import SubmillionClassifier

NUMBERS = "fits numbers, which are no texts"
ONE_COLUMN = "cuts X to one column, as both kinds are accepted, and then takes columns of it"
MESSAGE = "asks for the wording of errors about numbers; these are refused as what they are, no texts"

# Each of these feeds numbers. All of them pass where the numbers are spelled as words (below).
EXPECTED_FAILURES = {
    "check_fit_score_takes_y": NUMBERS,
    "check_estimators_overwrite_params": NUMBERS,
    "check_dont_overwrite_parameters": ONE_COLUMN,
    "check_estimators_fit_returns_self": NUMBERS,
    "check_readonly_memmap_input": NUMBERS,
    "check_n_features_in_after_fitting": NUMBERS,
    "check_positive_only_tag_during_fit": NUMBERS,
    "check_estimators_dtypes": NUMBERS,
    "check_complex_data": MESSAGE,
    "check_dtype_object": NUMBERS,
    "check_pipeline_consistency": NUMBERS,
    "check_estimators_nan_inf": NUMBERS,
    "check_estimator_sparse_array": "makes a sparse array of one dimension, in a format that has none",
    "check_estimators_pickle": NUMBERS,
    "check_f_contiguous_array_estimator": ONE_COLUMN,
    "check_classifier_data_not_an_array": NUMBERS,
    "check_classifiers_one_label": MESSAGE,
    "check_classifiers_classes": NUMBERS,
    "check_classifiers_train": NUMBERS,
    "check_classifiers_regression_target": MESSAGE,
    "check_supervised_y_2d": NUMBERS,
    "check_methods_sample_order_invariance": ONE_COLUMN,
    "check_methods_subset_invariance": ONE_COLUMN,
    "check_fit2d_1sample": ONE_COLUMN,
    "check_fit2d_1feature": ONE_COLUMN,
    "check_dict_unchanged": ONE_COLUMN,
    "check_fit_idempotent": NUMBERS,
    "check_fit_check_is_fitted": NUMBERS,
    "check_n_features_in": NUMBERS,
    "check_fit2d_predict1d": ONE_COLUMN,
    "check_requires_y_none": MESSAGE,
}


class SpelledNumbers(SubmillionClassifier):
    """A classifier that reads each number of a table as a word, so that the checks really fit, refuse and compare."""

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = False
        # One step on a random base learns nothing; learning is tested on texts.
        tags.classifier_tags.poor_score = True
        return tags

    def _read_texts(self, X: Any, *, is_fit: bool) -> list[tuple[str, ...]]:
        numbers = validate_data(self, X, reset=is_fit)
        words: Any = np.array([[f"{value:.3g}" for value in row] for row in numbers], dtype=object)
        if isinstance(X, pd.DataFrame):
            words = pd.DataFrame(words, columns=X.columns)
        return super()._read_texts(words, is_fit=is_fit)


# The base is filled in when a check runs; texts of few tokens and one step keep each fit below a second.
QUICK: dict[str, Any] = {
    "base": "tiny",
    "max_steps": 1,
    "batch_size": 8,
    "max_length": 16,
    "threads": 1,
    "random_state": 0,
    "settings": {"model.precision": "fp32", "data.leaks": "keep"},
}
# scikit-learn has no types, so mypy is told what its decorators are.
CHECKS_ON_WORDS: pytest.MarkDecorator = parametrize_with_checks([SpelledNumbers(**QUICK)])
CHECKS_ON_NUMBERS: pytest.MarkDecorator = parametrize_with_checks(
    [SubmillionClassifier(**QUICK)], expected_failed_checks=lambda _: EXPECTED_FAILURES, xfail_strict=True
)


@pytest.fixture(autouse=True)
def _keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", "off")


@pytest.mark.filterwarnings("ignore")
@CHECKS_ON_WORDS
def test_every_check_passes_on_numbers_spelled_as_words(
    estimator: SpelledNumbers, check: Callable[[Any], None], tiny_bert: Path
) -> None:
    check(estimator.set_params(base=str(tiny_bert)))


@pytest.mark.filterwarnings("ignore")
@CHECKS_ON_NUMBERS
def test_the_other_checks_pass_and_these_fail_for_their_reasons(
    estimator: SubmillionClassifier, check: Callable[[Any], None], tiny_bert: Path
) -> None:
    check(estimator.set_params(base=str(tiny_bert)))


def test_no_expected_failure_is_out_of_date() -> None:
    names = {check.func.__name__ for _, check in estimator_checks_generator(SubmillionClassifier())}
    assert EXPECTED_FAILURES.keys() <= names
    assert len(names - EXPECTED_FAILURES.keys()) > 15


def test_the_tags_say_what_is_accepted() -> None:
    tags: Any = SubmillionClassifier().__sklearn_tags__()
    assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, True)
    assert not tags.input_tags.sparse
    assert tags.target_tags.required
    assert tags.estimator_type == "classifier"
