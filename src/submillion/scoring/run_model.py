"""A trained run, loaded to classify, score and predict in a stream.

Slow imports (torch and the code that builds a model) happen when a run is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from submillion.budget.adapter_settings import CONFIG_NAME, check_head_kind, choose_base, describe_unknown
from submillion.budget.folder import plan_adapter_folder
from submillion.budget.plan import Plan
from submillion.config.run import ModelConfig, RunConfig, parse_config
from submillion.data.clean import clean_records, is_without_text
from submillion.data.columns import Columns
from submillion.data.legibility import Legibility, measure_legibility
from submillion.data.reading import Reading, read_labels, read_reading, read_temperature, recover_reading
from submillion.data.run_columns import fit_columns
from submillion.data.texts import list_texts
from submillion.encoding.text_encoder import TextEncoder, make_features
from submillion.errors import ConfigError, DataError, ModelError, RunError
from submillion.metrics import stats
from submillion.model.sources import BaseModel, find_base, load_base_config
from submillion.progress import Progress, Silent
from submillion.records import LabelSet, Prediction, Record
from submillion.run.folder import RunDir
from submillion.run.reader import read_config, read_data_report, read_manifest, read_plan
from submillion.storage.files import read_json
from submillion.tables.table import Tell

if TYPE_CHECKING:
    from submillion.model.encoder import Classifier
    from submillion.model.merged import MergedClassifier, ScorePrecision

# Number of records that a stream holds at once: enough to fill passes of equal lengths, but little memory.
STREAM_WINDOW = 4096

EXPORT_NAME = "submillion.json"
"""File in an exported folder with the data that a model needs besides its weights."""


@dataclass(frozen=True)
class ScoredRecords:
    """Logits of records.

    Attributes:
        logits: Shape (n, C), float32, in the records' order.
        num_truncated: Number of records cut to the model's length.
        legibility: Counts of how much of the texts reached the model.
        is_blank: Whether each record has no text after cleaning, shape (n,); such a record's logits are meaningless.
    """

    logits: NDArray[np.float32]
    num_truncated: int
    legibility: Legibility
    is_blank: NDArray[np.bool_]

    def describe_blank(self) -> str:
        """Return a sentence on the number of records without text; empty if there are none."""
        count = int(self.is_blank.sum())
        return (
            f"{count:,} of {len(self.is_blank):,} rows have no text: their predictions are meaningless" if count else ""
        )


@dataclass(frozen=True)
class RunModel:
    """A trained run in memory.

    Attributes:
        folder: The run folder.
        config: Configuration of the run.
        plan: Plan of the run.
        labels: Classes of the run.
        temperature: Temperature, fitted on the validation rows.
        classifier: The model.
        encoder: Encoder of texts to token ids.
        reading: Way in which the run's data was read; other files are read the same way.
        notes: Remarks about the folder, one sentence each.
    """

    folder: RunDir
    config: RunConfig
    plan: Plan
    labels: LabelSet
    temperature: float
    classifier: Classifier | MergedClassifier
    encoder: TextEncoder
    reading: Reading
    notes: tuple[str, ...] = ()

    def classify(
        self, texts: str | Iterable[str], *, on_read: Callable[[Legibility], None] | None = None
    ) -> list[Prediction]:
        """Return the label and the probabilities of each text, in order.

        Args:
            texts: A list, tuple, array, Series or generator of texts. Pass a single text as a list of one.
            on_read: Function called with the legibility counts, as in `predict`.

        Raises:
            DataError: An item is not a text, but for example None, NaN, bytes or a table. The message gives its
                position.
        """
        records = (Record(str(row), (text,)) for row, text in enumerate(list_texts(texts)))
        return list(self.predict(records, on_read=on_read))

    def score_records(self, records: Sequence[Record], *, progress: Progress | None = None) -> ScoredRecords:
        """Clean, encode and score records in the same way as the run's own records."""
        progress = progress or Silent()
        from submillion.scoring.score import SCORE_TOKENS_FACTOR, score

        cleaned = list(clean_records(records, self.config.data.clean))
        assert [r.id for r in cleaned] == [r.id for r in records]
        progress.start("score", len(cleaned))
        texts = [record.text for record in cleaned]
        tokens = self.encoder.tokenise(texts)
        features = make_features(cleaned, tokens)
        max_tokens = SCORE_TOKENS_FACTOR * self.config.train.micro_batch_tokens
        logits = score(self.classifier, features, max_tokens=max_tokens, on_progress=progress.advance)
        progress.finish()
        legibility = measure_legibility(
            texts,
            tokens.counts,
            [record.label for record in cleaned],
            self.labels.names,
            max_length=self.encoder.max_length,
            long_texts=self.encoder.long_texts,
        )
        is_blank = np.array([is_without_text(record.text) for record in cleaned], dtype=np.bool_)
        return ScoredRecords(logits, sum(f.truncated for f in features), legibility, is_blank)

    def choose_columns(self, source: str, asked: Columns, on_note: Tell) -> Columns:
        """Return the columns that the run reads from a file to predict, and report remarks about them.

        Raises:
            DataError: The file lacks a text column of the run.
        """
        from submillion.data.read import list_columns

        present = next(iter(list_columns(source).values()))
        columns, notes = fit_columns(self.reading, present, asked, where=source, needs_label=False, needs_id=False)
        for note in (*self.notes, *notes):
            on_note(note)
        return columns

    def predict(
        self,
        rows: str | PathLike[str] | Iterable[Record],
        *,
        progress: Progress | None = None,
        on_read: Callable[[Legibility], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield one prediction per record, in order, with a window of records in memory at a time.

        Args:
            rows: A file, which is read with the columns of the run, or records from `submillion.read_records`, labelled
                or not. `classify` takes texts.
            progress: Receiver of the number of records done, and of notes on guesses in reading a file.
            on_read: Function called with each window's legibility counts, whose sum is that of the stream.

        Raises:
            DataError: A file cannot be read or lacks a column of the run, or an item is not a record.
        """
        on_note = (progress or Silent()).note
        if isinstance(rows, (str, PathLike)):
            from submillion.data.read import iter_records

            source = str(rows)
            rows = iter_records(source, self.choose_columns(source, Columns(), on_note), on_note=on_note)
        return self._predict(rows, progress or Silent(), on_read)

    def _predict(
        self, records: Iterable[Record], progress: Progress, on_read: Callable[[Legibility], None] | None
    ) -> Iterator[Prediction]:
        iterator = iter(records)
        done = 0
        while window := list(islice(iterator, STREAM_WINDOW)):
            odd = next((row for row in window if not isinstance(row, Record)), None)
            if odd is not None:
                raise DataError(f"{odd!r:.60} is not a record", where="rows", hint="Texts are for classify.")
            scored = self.score_records(window)
            if on_read is not None:
                on_read(scored.legibility)
            probabilities = stats.softmax(scored.logits, self.temperature)
            for record, row, is_blank in zip(window, probabilities, scored.is_blank.tolist(), strict=True):
                yield self.labels.decode(record.id, row, has_text=not is_blank)
            done += len(window)
            progress.advance(done)


def load_run(
    folder: Path | str,
    *,
    base: str | None = None,
    threads: int | None = None,
    precision: ScorePrecision | None = None,
) -> RunModel:
    """Load a trained run, a merged export of one, or a PEFT folder with an adapter and its head.

    An adapter folder has no class names and no temperature, so its classes are named by their ids.

    Args:
        folder: The run folder or the adapter folder.
        base: Base model of an adapter folder, if it is not the one that the adapter names.
        threads: Number of CPU threads; None takes the process's allowance.
        precision: Precision of the encoder's products; None takes the run's. ``int8`` is about twice as fast.

    Raises:
        RunError: It is not a run folder, it is damaged, or the run has not finished.
        ConfigError: A base was given for a run, which has its own.
        ModelError: The base model cannot be found or is not the run's, or the adapter does not fit it.
    """
    run = RunDir(Path(folder))
    if base is None and (run.path / EXPORT_NAME).exists() and not (run.path / CONFIG_NAME).exists():
        return _load_export(run, threads, precision)
    if not run.manifest.exists() and (run.path / CONFIG_NAME).exists():
        return _load_adapter_folder(run, base, threads, precision)
    if base is not None:
        raise ConfigError(f"a run has its own base, which {base!r} cannot replace", where=str(folder))
    trained = read_trained(run)
    from submillion.scoring.load_classifier import load_scorer
    from submillion.training.device import open_device

    config, plan = trained.config, trained.plan
    device = open_device(config.model.precision, threads)
    classifier = load_scorer(
        trained.base, plan, config.model, run.adapter, trained.head, device=device, precision=precision
    )
    return RunModel(
        folder=run,
        config=config,
        plan=plan,
        labels=trained.labels,
        temperature=trained.temperature,
        classifier=classifier,
        encoder=TextEncoder(run.tokenizer, config.model.num_tokens_kept, config.model.long_texts),
        reading=trained.reading,
        notes=trained.notes,
    )


@dataclass(frozen=True)
class Trained:
    """A run that was trained to the end, without its weights.

    Attributes:
        config: Configuration of the run.
        plan: Plan of the run.
        base: Base model that the run was trained on.
        labels: Classes of the run.
        temperature: Temperature, fitted on the validation rows.
        head: The linear head's file; None for a native head.
        reading: Way in which the run's data was read.
        notes: Remarks about the folder, one sentence each.
    """

    config: RunConfig
    plan: Plan
    base: BaseModel
    labels: LabelSet
    temperature: float
    head: Path | None
    reading: Reading
    notes: tuple[str, ...] = ()


def read_trained(run: RunDir) -> Trained:
    """Read a run that has been trained to the end, and find its base model.

    Raises:
        RunError: It is not a run folder, it is damaged, the run has not finished, or the base has changed.
        ModelError: The base model cannot be found.
    """
    if not run.manifest.exists():
        raise RunError(
            "is not a run folder: manifest.json is missing",
            where=str(run.path),
            hint="Give the folder that `submillion train` printed last.",
        )
    manifest = read_manifest(run)
    if manifest.temperature is None or not run.has_weights():
        raise RunError(
            "has not been trained to the end",
            where=str(run.path),
            hint=f"Continue it: submillion train --resume {run.path}",
        )
    config = read_config(run)
    plan = read_plan(run)
    found = find_base(config.model.base, config.model.revision or manifest.base.revision)
    if found.weights_sha256 != manifest.base.weights_sha256:
        raise RunError(
            f"was trained on weights {manifest.base.weights_sha256[:12]}…, found {found.weights_sha256[:12]}…",
            where=str(run.path),
            hint="The base model has changed since; restore the one that the manifest names.",
        )
    data = read_data_report(run)
    labels = read_labels(data, plan.num_labels, where=str(run.data))
    reading, notes = read_reading(data, labels, config.data, where=str(run.data))
    return Trained(
        config=config,
        plan=plan,
        base=found,
        labels=labels,
        temperature=manifest.temperature,
        head=run.head if plan.head == "linear" else None,
        reading=reading,
        notes=notes,
    )


def _load_export(folder: RunDir, threads: int | None, precision: ScorePrecision | None) -> RunModel:
    from submillion.model.stock_scorer import load_plain_classifier
    from submillion.training.device import open_device

    where = folder.path / EXPORT_NAME
    values = read_json(where, follows_links=True)
    try:
        settings = {"model": {**values["model"], "base": str(folder.path)}, "data": {"clean": values["clean"]}}
        plan = Plan.from_json(values["plan"], where=str(where))
    except (KeyError, TypeError) as error:
        raise RunError(f"is damaged: {error!r}", where=str(where), hint="Export the run again.") from None
    config = parse_config(settings, where=str(where))
    labels = read_labels(values, plan.num_labels, where=str(where))
    temperature = read_temperature(values, where=str(where))
    reading, notes = read_reading(values, labels, config.data, where=str(where))
    device = open_device(config.model.precision, threads)
    if precision is not None and precision != device.precision:
        raise ConfigError(
            f"{precision} scoring is not to be had for an exported model", where=str(folder.path), hint="Give the run."
        )
    head = folder.head if plan.head == "linear" else None
    base = find_base(str(folder.path))
    classifier = load_plain_classifier(base, plan, config.model, head=head, dtype=device.dtype)
    return RunModel(
        folder=folder,
        config=config,
        plan=plan,
        labels=labels,
        temperature=temperature,
        classifier=classifier.to(device.device),
        encoder=TextEncoder(folder.path, config.model.num_tokens_kept, config.model.long_texts),
        reading=reading,
        notes=notes,
    )


def _load_adapter_folder(
    folder: RunDir, base: str | None, threads: int | None, precision: ScorePrecision | None
) -> RunModel:
    from submillion.model.encoder import find_window
    from submillion.scoring.load_classifier import load_scorer
    from submillion.training.device import open_device

    name, revision = choose_base(folder.path, base)
    # The budget limits runs trained with this tool, not adapters from elsewhere.
    values = load_base_config(name, revision)
    check_head_kind(values)
    plan = plan_adapter_folder(folder.path, values, budget=sys.maxsize, base=name)
    if plan.head != "native":
        raise ModelError(
            "the adapter does not have the architecture's native classification head",
            where=str(folder.path),
            hint="If it is part of a run of submillion, give that run's folder.",
        )
    model = ModelConfig(base=name, revision=revision, head=plan.head)
    window = find_window(values)
    if window is not None and window < model.num_tokens_kept:
        model = ModelConfig(base=name, revision=revision, head=plan.head, max_length=window)
    config = RunConfig(model=model)
    found = find_base(name, revision)
    device = open_device(model.precision, threads)
    classifier = load_scorer(found, plan, model, folder.path, None, device=device, precision=precision)
    labels = LabelSet(tuple(str(label) for label in range(plan.num_labels)))
    return RunModel(
        folder=folder,
        config=config,
        plan=plan,
        labels=labels,
        temperature=1.0,
        classifier=classifier,
        encoder=TextEncoder(found.folder, model.num_tokens_kept),
        reading=recover_reading(labels),
        notes=(
            "an adapter folder names no classes or columns, so classes are numbered and columns found by name",
            *describe_unknown(folder.path),
        ),
    )
