"""A trained run, loaded for use: classify, score, predict in a stream.

What takes long to import (torch, and what builds a model) is imported when a run is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from submillion import stats
from submillion.budget.adapter_settings import CONFIG_NAME, check_head_kind, choose_base, describe_unknown
from submillion.budget.folder import plan_adapter_folder
from submillion.budget.plan import Plan
from submillion.config import ModelConfig, RunConfig, parse_config
from submillion.data.clean import clean_records, is_without_text
from submillion.data.legibility import Legibility, measure_legibility
from submillion.data.reading import Reading, read_labels, read_reading, read_temperature, recover_reading
from submillion.data.texts import list_texts
from submillion.errors import ConfigError, ModelError, RunError
from submillion.evaluate import Evaluation, evaluate_logits
from submillion.manifest import count_test_evaluation
from submillion.model.sources import BaseModel, find_base, load_base_config
from submillion.progress import Progress, Silent
from submillion.records import LabelSet, Prediction, Record
from submillion.results import hash_records, labels_of
from submillion.run_files import read_config, read_data_report, read_manifest
from submillion.rundir import RunDir, read_json
from submillion.text_encoder import TextEncoder, make_features

if TYPE_CHECKING:
    from submillion.model.encoder import Classifier
    from submillion.model.merged import MergedClassifier, ScorePrecision

# Records held at once by a stream: enough to fill passes of equal lengths, few enough to stay small.
STREAM_WINDOW = 4096

EXPORT_NAME = "submillion.json"
"""In an exported folder: what a model needs besides its weights."""


@dataclass(frozen=True)
class ScoredRecords:
    """Logits of records.

    Attributes:
        logits: Shape (n, C), float32, in the records' order.
        num_truncated: Records cut to the model's length.
        legibility: How much of the texts reached the model.
        is_blank: Which records hold no text once they are cleaned, shape (n,); their logits say nothing.
    """

    logits: NDArray[np.float32]
    num_truncated: int
    legibility: Legibility
    is_blank: NDArray[np.bool_]

    def describe_blank(self) -> str:
        """Return how many records hold no text; empty where all do."""
        count = int(self.is_blank.sum())
        return (
            f"{count:,} of {len(self.is_blank):,} rows hold no text: what is predicted for them says nothing"
            if count
            else ""
        )


@dataclass(frozen=True)
class RunModel:
    """A trained run in memory.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        plan: Its plan.
        labels: Its classes.
        temperature: Fitted on its validation rows.
        classifier: The model itself.
        encoder: Text to token ids.
        reading: How its data was read: other files are read the same way.
        notes: What is to be known of the folder, one sentence each.
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
            texts: A list, tuple, array, Series or generator of texts. One single text is a list of one.
            on_read: Told what reached the model, as in `predict_stream`.

        Raises:
            DataError: Something that is no text, such as None, NaN, bytes or a table, with its position.
        """
        records = (Record(str(row), (text,)) for row, text in enumerate(list_texts(texts)))
        return list(self.predict_stream(records, on_read=on_read))

    def score_records(self, records: Sequence[Record], *, progress: Progress | None = None) -> ScoredRecords:
        """Clean, encode and score records as the run's own were."""
        progress = progress or Silent()
        from submillion.score import SCORE_TOKENS_FACTOR, score

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

    def predict_stream(
        self,
        records: Iterable[Record],
        *,
        progress: Progress | None = None,
        on_read: Callable[[Legibility], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield one prediction per record, in order, holding a window of records at a time.

        Args:
            records: Records, labelled or not.
            progress: Told how many records are done.
            on_read: Told of each window how much of its texts reached the model; the sum of all is that of the stream.
        """
        iterator = iter(records)
        done = 0
        while window := list(islice(iterator, STREAM_WINDOW)):
            scored = self.score_records(window)
            if on_read is not None:
                on_read(scored.legibility)
            probabilities = stats.softmax(scored.logits, self.temperature)
            for record, row, is_blank in zip(window, probabilities, scored.is_blank.tolist(), strict=True):
                yield self.labels.decode(record.id, row, has_text=not is_blank)
            done += len(window)
            if progress is not None:
                progress.advance(done)


def load_run(
    folder: Path | str,
    *,
    base: str | None = None,
    threads: int | None = None,
    precision: ScorePrecision | None = None,
) -> RunModel:
    """Load a trained run, a merged export of one, or a folder that PEFT saved an adapter with its head in.

    An adapter folder knows neither class names nor a temperature: its classes are named by their ids.

    Args:
        folder: The run folder or the adapter folder.
        base: Base model of an adapter folder, where it is not the one that the adapter names.
        threads: CPU threads; None takes the process's allowance.
        precision: Of the encoder's products; None is that of the run. ``int8`` is about twice as fast.

    Raises:
        RunError: No run folder, a damaged one, or a run that has not come to its end.
        ConfigError: A base for a run, which has its own.
        ModelError: The base model cannot be found, or is another than the run's; or an adapter that does not fit it.
    """
    run = RunDir(Path(folder))
    if base is None and (run.path / EXPORT_NAME).exists() and not (run.path / CONFIG_NAME).exists():
        return _load_export(run, threads, precision)
    if not run.manifest.exists() and (run.path / CONFIG_NAME).exists():
        return _load_adapter_folder(run, base, threads, precision)
    if base is not None:
        raise ConfigError(f"a run keeps its own base, {base!r} cannot take its place", where=str(folder))
    trained = read_trained(run)
    from submillion.scorer import load_scorer
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
    """What a run that has been trained to the end consists of, but for its weights.

    Attributes:
        config: Its configuration.
        plan: Its plan.
        base: Its base model, the one that it was trained on.
        labels: Its classes.
        temperature: Fitted on its validation rows.
        head: The linear head's file; None for a native head.
        reading: How its data was read.
        notes: What is to be known of the folder, one sentence each.
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
        RunError: No run folder, a damaged one, a run that has not come to its end, or a base that has changed.
        ModelError: The base model cannot be found.
    """
    if not run.manifest.exists():
        raise RunError(
            "is no run folder: manifest.json is missing",
            where=str(run.path),
            hint="Give the folder that `submillion train` printed last.",
        )
    manifest = read_manifest(run)
    if not run.adapter.is_dir() or "temperature" not in manifest:
        raise RunError(
            "has not been trained to the end",
            where=str(run.path),
            hint=f"Continue it: submillion train --resume {run.path}",
        )
    config = read_config(run)
    plan = Plan.from_json(read_json(run.plan), where=str(run.plan))
    found = find_base(config.model.base, config.model.revision or manifest["base"]["revision"])
    if found.weights_sha256 != manifest["base"]["weights_sha256"]:
        raise RunError(
            f"was trained on weights {manifest['base']['weights_sha256'][:12]}…, found {found.weights_sha256[:12]}…",
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
        temperature=read_temperature(manifest, where=str(run.manifest)),
        head=run.head if plan.head == "linear" else None,
        reading=reading,
        notes=notes,
    )


def _load_export(folder: RunDir, threads: int | None, precision: ScorePrecision | None) -> RunModel:
    from submillion.model.plain import load_plain_classifier
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
    from submillion.scorer import load_scorer
    from submillion.training.device import open_device

    name, revision = choose_base(folder.path, base)
    # The budget binds what is trained here, not what others trained.
    values = load_base_config(name, revision)
    check_head_kind(values)
    plan = plan_adapter_folder(folder.path, values, budget=sys.maxsize, base=name)
    if plan.head != "native":
        raise ModelError(
            "the adapter has no classification head of the architecture's own",
            where=str(folder.path),
            hint="If it is part of a run of submillion, give the run folder above it.",
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
            "an adapter folder names no classes and no columns: classes are numbered, columns are found by name",
            *describe_unknown(folder.path),
        ),
    )


def evaluate_run(model: RunModel, records: Sequence[Record], *, progress: Progress | None = None) -> Evaluation:
    """Evaluate a run on labelled records.

    Where these are the run's own test rows, the manifest counts one more test evaluation; where the folder cannot be
    written, a note says that it does not.
    """
    cleaned = list(clean_records(records, model.config.data.clean))
    data = model.folder.data
    if data.exists() and read_data_report(model.folder)["test_sha256"] == hash_records(cleaned):
        try:
            count_test_evaluation(model.folder)
        except OSError as error:
            (progress or Silent()).note(
                f"{model.folder.manifest} cannot be written ({error.strerror}): it does not count "
                "this evaluation of the test rows"
            )
    scored = model.score_records(records, progress=progress)
    if note := scored.describe_blank():
        (progress or Silent()).note(note)
    return evaluate_logits(
        scored.logits,
        labels_of(records),
        model.labels,
        temperature=model.temperature,
        num_truncated=scored.num_truncated,
        legibility=scored.legibility.to_json(),
    )
