"""A scikit-learn classifier of texts, whose `fit` is a whole run: it plans, trains, validates and counts."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from submillion import api
from submillion.config.run import RunConfig
from submillion.data.labels import normalise_label
from submillion.errors import ConfigError, DataError, RunError
from submillion.metrics import stats
from submillion.pipeline.proof import sum_saved_params
from submillion.pipeline.resolve import resolve_config
from submillion.records import LabelSet, Record
from submillion.run.folder import RunDir
from submillion.scoring.pickled_run import StoredRun
from submillion.storage.files import read_json

# Parameters of the estimator, and the settings that they give.
_SETTINGS: Mapping[str, str] = {
    "budget": "budget",
    "rank": "adapter.rank",
    "targets": "adapter.targets",
    "head": "model.head",
    "max_length": "model.max_length",
    "epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "head_learning_rate": "train.head_learning_rate",
    "validation_size": "data.validation_size",
    "threads": "threads",
}
# Settings that `fit` decides: they follow from X, y and the parameters, or make outputs that nobody would see.
_OWN = (
    *("data.source", "data.text", "data.label", "data.id", "data.labels", "data.numbers", "data.split_seed"),
    *("seed", "baseline"),
)
_MAX_SEED = 2**31 - 1


class SubmillionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A text classifier with fewer trainable parameters than its budget.

    `X` is a list, array or Series of texts, or a table of text columns (a DataFrame, or an array of shape
    (n, columns)), which are joined by a space. `y` holds one hashable label per text. `fit` sets a stratified part of
    the rows aside, trains on the others and keeps the checkpoint that is best on that part. The budget is checked
    before anything is written, and the trained parameters are counted in the saved files.

    A fitted classifier holds its run as the bytes of its files (safetensors and JSON) and needs no folder. Its pickle
    is as large as the run and holds strings, bytes and numbers, but unpickling can run any code that a pickle holds.
    `save_run` and `from_run` pass a classifier to others without that risk.

    Every parameter that is None takes the recipe's value.

    Args:
        budget: Limit that the trainable parameters, including the head, stay strictly below.
        base: Base model: a short name, a hub id or a folder.
        recipe: Name of a shipped recipe, path of a YAML file, or nested settings, which give all other settings.
        rank: Rank of the adapter, or ``auto`` for the largest that fits the budget.
        targets: Kinds of linear layers, ``all``, or full module names.
        head: ``native`` or ``linear``.
        max_length: Number of tokens kept of a text.
        epochs: Number of passes over the training rows.
        max_steps: Number of optimizer steps; overrides epochs.
        batch_size: Number of records per step.
        learning_rate: Learning rate of the adapter.
        head_learning_rate: Learning rate of the head.
        validation_size: Share (below 1) or number of rows set aside for validation.
        settings: Any other setting by dotted path, such as ``{"train.label_smoothing": 0.1}``.
        threads: Number of CPU threads; None takes the process's allowance.
        random_state: Seed for split, initialisation, order and dropout. An integer gives repeatable runs; None draws a
            seed from numpy.

    Attributes:
        classes_: The labels, in the order of the columns of `predict_proba`.
        n_features_in_: Number of text columns, if `X` was a table.
        feature_names_in_: Names of the text columns, if `X` was a DataFrame with names that are strings.
        plan_: List of every trainable parameter (`submillion.budget.plan.Plan`).
        validation_: Figures on the rows set aside. They are too optimistic for other rows, since these rows chose the
            checkpoint and the temperature.
        run_: The run as the bytes of its files.

    Examples:
        >>> from submillion import SubmillionClassifier
        >>> classifier = SubmillionClassifier(budget=100_000, base="minilm-l6", random_state=0)
        >>> classifier.fit(texts, labels).predict(["Rain stops play"])  # doctest: +SKIP
    """

    def __init__(
        self,
        budget: int | None = None,
        base: str | PathLike[str] | None = None,
        *,
        recipe: str | PathLike[str] | Mapping[str, object] = "demo",
        rank: int | str | None = None,
        targets: Sequence[str] | None = None,
        head: str | None = None,
        max_length: int | None = None,
        epochs: float | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        head_learning_rate: float | None = None,
        validation_size: float | None = None,
        settings: Mapping[str, object] | None = None,
        threads: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.budget = budget
        self.base = base
        self.recipe = recipe
        self.rank = rank
        self.targets = targets
        self.head = head
        self.max_length = max_length
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.validation_size = validation_size
        self.settings = settings
        self.threads = threads
        self.random_state = random_state

    def __sklearn_tags__(self) -> object:
        """Declare that X is text: one text per row, or a table of text columns."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on texts and their labels.

        Args:
            X: Texts, or a table of text columns, with n rows.
            y: The n labels, with at least two classes and two rows of each.

        Raises:
            DataError: Rows are not texts, labels are not classes, or there are too few of them.
            ConfigError: Parameters do not fit each other or the base model.
            BudgetError: The plan reaches the budget. The message says what would fit.
            ModelError: The base model cannot be found.
            RunError: The loss is not finite, or the disk is full.
        """
        rows = self._read_texts(X, is_fit=True)
        labels, ids = _encode_labels(y)
        check_consistent_length(rows, ids)
        _require_classes(labels, ids)
        names = _name_classes(labels)
        columns = self._name_columns(len(rows[0]))
        with tempfile.TemporaryDirectory(prefix="submillion-fit-") as folder:
            data, run = Path(folder) / "train.jsonl", Path(folder) / "run"
            config = self._make_config(data.parent, columns, names)
            # This checks settings, budget and base model before any file is written.
            api.plan(config)
            _write_rows(data, rows, columns, [names[label] for label in ids])
            summary = api.train(config, out=run)
            num_saved = sum_saved_params(RunDir(run))
            if num_saved != summary.plan.trainable_params:
                planned = summary.plan.trainable_params
                raise RunError(f"the files hold {num_saved:,} trained parameters, but {planned:,} were planned")
            stored = StoredRun.read(run)
        self.classes_ = labels
        self.plan_ = summary.plan
        self.validation_ = summary.evaluations["validation"]
        self.run_ = stored
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (n, C), float64, with columns in the order of `classes_`.

        Raises:
            NotFittedError: `fit` has not been called.
            DataError: Rows are not texts, or the table differs from that of `fit`.
        """
        check_is_fitted(self)
        rows = self._read_texts(X, is_fit=False)
        model = self.run_.load(self.threads)
        scored = model.score_records([Record(str(number), row) for number, row in enumerate(rows)])
        return stats.softmax(scored.logits, model.temperature)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each text, shape (n,), with the type of the labels."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, 0..1, of predictions for labelled texts; `sample_weight` weighs the rows."""
        predicted = self.predict(X)
        given = _as_labels(y)
        check_consistent_length(predicted, given, sample_weight)
        right = [float(first == second) for first, second in zip(predicted.tolist(), given.tolist(), strict=True)]
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        return float(np.average(np.array(right), weights=weights))

    def save_run(self, folder: str | PathLike[str]) -> Path:
        """Write the run into a new or empty folder, for `submillion evaluate`, `predict`, `load` and `from_run`.

        Raises:
            NotFittedError: `fit` has not been called.
            ConfigError: The folder is not empty.
        """
        check_is_fitted(self)
        stored: StoredRun = self.run_
        return stored.write(Path(folder))

    @classmethod
    def from_run(cls, folder: str | PathLike[str]) -> Self:
        """Return a fitted classifier from the folder of a finished run; its classes are the run's class names.

        Raises:
            RunError: It is not a run folder, or the run has not finished.
        """
        stored = StoredRun.read(Path(folder))
        model = stored.load(None)
        classifier = cls(recipe=model.config.model_dump(mode="json"), random_state=model.config.seed)
        classifier.classes_ = np.array(model.labels.names, dtype=object)
        classifier.plan_ = model.plan
        classifier.validation_ = read_json(RunDir(Path(folder)).evaluation("validation"))
        columns = model.reading.text
        if len(columns) > 1:
            classifier.n_features_in_ = len(columns)
            classifier.feature_names_in_ = np.array(columns, dtype=object)
        classifier.run_ = stored
        return classifier

    def _read_texts(self, X: object, *, is_fit: bool) -> list[tuple[str, ...]]:
        """Return the text columns of each row, and set or check the attributes of a table's columns."""
        if isinstance(X, str):
            raise DataError(f"{X[:60]!r} is one text", where="X", hint="Give a list of texts, even for a single one.")
        try:
            cells = check_array(X, dtype=object, ensure_2d=False, input_name="X", estimator=self)
        except ValueError as error:
            raise DataError(str(error), where="X") from None
        is_table = cells.ndim == 2
        if not is_fit and is_table != hasattr(self, "n_features_in_"):
            kinds = ("one text per row", "a table of text columns")
            raise DataError(f"is {kinds[is_table]}, fit had {kinds[not is_table]}", where="X")
        if is_table:
            validate_data(self, X, skip_check_array=True, reset=is_fit)
        elif is_fit:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        rows = cells if is_table else cells[:, None]
        for number, row in enumerate(rows):
            for cell in row:
                if not isinstance(cell, str):
                    raise DataError(
                        f"row {number} holds {cell!r:.60} ({type(cell).__name__}), which is not a text",
                        where="X",
                        hint="X is one text per row or a table of text columns; numbers are for other estimators.",
                    )
        return [tuple(row) for row in rows]

    def _name_columns(self, count: int) -> tuple[str, ...]:
        """Return names for the text columns in the run: those of the table if possible."""
        if not hasattr(self, "n_features_in_"):
            return ("text",)
        names = tuple(str(name).strip() for name in getattr(self, "feature_names_in_", ()))
        taken = {name.lower() for name in names}
        is_usable = len(taken) == count and not taken & {"", "id", "label"} and all(map(str.isprintable, names))
        return names if is_usable else tuple(f"text_{number}" for number in range(1, count + 1))

    def _make_config(self, source: Path, columns: Sequence[str], names: Sequence[str]) -> RunConfig:
        seed = int(check_random_state(self.random_state).randint(_MAX_SEED))
        chosen = {path: getattr(self, name) for name, path in _SETTINGS.items() if getattr(self, name) is not None}
        others = dict(self.settings or {})
        for path in others:
            if path in chosen or path in _OWN or path.startswith("final") or path == "model.base":
                raise ConfigError(
                    f"{path!r} cannot be set here",
                    where="settings",
                    hint="X, y, random_state and the parameters of the classifier determine it.",
                )
        own: dict[str, object] = {
            "data.text": list(columns),
            "data.label": "label",
            "data.id": "id",
            "data.labels": list(names),
            "data.numbers": "names",
            "data.split_seed": seed,
            "seed": seed,
            # Nobody would read the page, and the files are counted and loaded here anyway.
            "baseline": False,
            "final.test": False,
            "final.proof": False,
            "final.report": False,
        }
        settings = {**chosen, **others, **own}
        return resolve_config(self.recipe, data=str(source), base=self.base, settings=settings).config


def _as_labels(y: object) -> NDArray[Any]:
    """Return labels as a one-dimensional array, with objects such as tuples, which numpy would read as rows."""
    if isinstance(y, (list, tuple)) and any(isinstance(label, (tuple, frozenset)) for label in y):
        labels = np.empty(len(y), dtype=object)
        labels[:] = y
        return labels
    # Labels of several types keep them: numpy would turn them all into strings.
    is_mixed = isinstance(y, (list, tuple)) and len({isinstance(label, str) for label in y}) > 1
    array = np.array(y, dtype=object) if is_mixed else np.asarray(y)
    return np.asarray(column_or_1d(array, warn=True))


def _encode_labels(y: object) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes in order, and the position of each label among them."""
    if y is None:
        raise DataError(
            "requires y to be passed, but the target y is None", where="y", hint="Give one label for each text."
        )
    try:
        labels = _as_labels(y)
        if labels.dtype != object:
            check_array(labels, dtype=None, ensure_2d=False, ensure_min_samples=0, input_name="y")
            check_classification_targets(labels)
    except ValueError as error:
        raise DataError(str(error), where="y") from None
    for number, label in enumerate(labels.tolist()):
        is_missing = label is None or (isinstance(label, float) and math.isnan(label))
        if is_missing or not isinstance(label, Hashable):
            raise DataError(f"row {number} holds {label!r:.60}, which is not a label", where="y")
    try:
        classes, ids = np.unique(labels, return_inverse=True)
    except TypeError:  # the types cannot be compared with each other
        known = sorted(set(labels.tolist()), key=lambda label: (type(label).__name__, repr(label)))
        classes = _as_objects(known)
        places = {label: place for place, label in enumerate(known)}
        ids = np.array([places[label] for label in labels.tolist()])
    return classes, ids.astype(np.int64)


def _as_objects(values: Sequence[object]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _require_classes(labels: NDArray[Any], ids: NDArray[np.int64]) -> None:
    counts = np.bincount(ids, minlength=len(labels))
    if len(labels) < 2:
        raise DataError(
            f"n_samples={len(ids)} rows have 1 class, {labels.tolist()!r:.60}",
            where="y",
            hint="A classifier needs at least two classes.",
        )
    if counts.min() < 2:
        rare = labels.tolist()[int(counts.argmin())]
        raise DataError(
            f"class {rare!r:.60} has only one row, which cannot be on both sides of a split",
            where="y",
            hint="Add rows of this class or leave it out: a part of each class is set aside for validation.",
        )


def _name_classes(labels: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of classes in the run: the labels as text if these are valid names, otherwise their numbers."""
    names = tuple(str(label).strip() for label in labels.tolist())
    # Names that are read as equal, such as 1 and 1.0, are not valid.
    are_apart = len({normalise_label(name) for name in names}) == len(names)
    is_usable = are_apart and all(name and name.isprintable() and name != "-1" for name in names)
    return LabelSet(names if is_usable else tuple(f"class-{number}" for number in range(len(labels)))).names


def _write_rows(path: Path, rows: Sequence[tuple[str, ...]], columns: Sequence[str], names: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            line = {"id": str(number), "label": name, **dict(zip(columns, row, strict=True))}
            file.write(json.dumps(line) + "\n")
