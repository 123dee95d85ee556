"""The input of a generation: the rows of the language model, the real rows to differ from, classes and prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from submillion.augment.prompt_files import Prompts, load_prompts, read_shipped_prompts
from submillion.cache import digest_parts
from submillion.config.generate import GenerateSettings
from submillion.config.run import CleanConfig, DataConfig
from submillion.data.check import check_records
from submillion.data.clean import clean_records
from submillion.data.columns import Columns
from submillion.data.parts import find_set_to_split, split_dataset
from submillion.data.read import Dataset, digest_source, iter_records, read_dataset
from submillion.data.similar import find_similar_texts
from submillion.data.trained_rows import NONE
from submillion.errors import ConfigError, DataError
from submillion.model.base_files import digest_file
from submillion.progress import Progress
from submillion.records import LabelSet, Record
from submillion.run.trained_rows import read_trained_rows
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    from submillion.scoring.run_model import RunModel


@dataclass(frozen=True)
class Inputs:
    """The files of a generation.

    Attributes:
        target: Unlabelled rows that the language model is adapted to; labels in the file are never read.
        data: Labelled data; that of the classifier if absent.
        tests: Test files whose rows the language model must not see.
        classifier: Run that judges the rows.
        prompts: YAML file of prompts; the shipped ones if absent.
        text: Text columns of the target.
    """

    target: str | None = None
    data: str | None = None
    tests: tuple[str, ...] = ()
    classifier: Path | None = None
    prompts: Path | None = None
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """The rows, classes and prompts that were read.

    Attributes:
        rows: Texts to adapt the language model to; in a conditional generation ``label: text``.
        real: Texts that no generated row may be near to.
        places: Place of each of these texts.
        labels: Classes.
        prompts: Prompts of the classes; None in a conditional generation.
        clean: Cleaning rules for rows.
        counts: Counts of rows read, left out and used.
        digests: Digests of everything read.
    """

    rows: list[str]
    real: list[str]
    places: list[str]
    labels: LabelSet
    prompts: Prompts | None
    clean: CleanConfig
    counts: JsonObject
    digests: JsonObject


def check_inputs(inputs: Inputs, settings: GenerateSettings) -> None:
    """Refuse inputs that do not fit together, before anything is read.

    Raises:
        ConfigError: An input is missing, or would have no effect.
    """
    if settings.conditional and inputs.prompts is not None:
        raise ConfigError(
            "a conditional generation uses no prompts", where="--prompts", hint="Leave out one of the two."
        )
    if settings.conditional and inputs.data is None and inputs.classifier is None:
        raise ConfigError(
            "a conditional generation learns from labelled rows", where="--conditional", hint="Give them with --data."
        )
    if inputs.target is None and inputs.text:
        raise ConfigError("names columns of a target that is not given", where="--text", hint="Give --target FILE.")
    if inputs.target is None and not settings.conditional and settings.is_tuned:
        raise ConfigError(
            "there are no rows to adapt the language model to",
            where="--target",
            hint="Give a file of unlabelled rows, or --conditional, which learns from the training rows, or "
            "--set finetune.epochs=0, which samples from the unchanged model.",
        )


def read_material(
    inputs: Inputs, settings: GenerateSettings, classifier: RunModel | None, progress: Progress
) -> Material:
    """Read everything, and leave out the language model's rows that appear in a test file.

    In a conditional generation, training rows that appear in validation are left out too.

    Raises:
        ConfigError: The prompts do not fit the classes.
        DataError: A file cannot be read, or the data has no labels.
    """
    config = classifier.config.data if classifier is not None else DataConfig()
    source = inputs.data or config.source
    columns = Columns(config.text, config.label, config.id)
    progress.start("read")
    sets: dict[str, list[Record]] = {}
    labels = classifier.labels if classifier is not None else None
    digests: JsonObject = {}
    if source is not None:
        dataset = read_dataset(source, columns, labels=labels, revision=None if inputs.data else config.revision)
        if dataset.labels is None:
            raise DataError("has no label column", where=source, hint="Give labelled data with --data.")
        labels = dataset.labels
        sets |= _split_as_trained(dataset, config, classifier)
        digests["data"] = dict(sorted(dataset.files.items()))
    for path in inputs.tests:
        sets[path] = list(iter_records(path, _choose_columns(path, columns)))
    if inputs.target is not None:
        target_columns = Columns(text=inputs.text)
        sets["target"] = list(iter_records(inputs.target, target_columns))
        digests["target"] = digest_source(inputs.target, target_columns)
    digests["tests"] = {path: digest_source(path, _choose_columns(path, columns)) for path in inputs.tests}
    sets = {name: list(clean_records(rows, config.clean)) for name, rows in sets.items()}
    progress.finish()
    prompts = None if settings.conditional else load_prompts(inputs.prompts, labels)
    if prompts is not None:
        digests["prompts"] = _digest_prompts(inputs.prompts)
        labels = labels or LabelSet(tuple(prompts))
    assert labels is not None
    chosen, counts = _choose_rows(sets, inputs, settings, progress)
    real = [record for rows in sets.values() for record in rows if record.text.strip()]
    places = [f"{name} {r.source}".strip() for name, rows in sets.items() for r in rows if r.text.strip()]
    texts = [record.text for record in chosen]
    if settings.conditional:
        texts = [write_conditional(labels.names[record.label or 0], record.text) for record in chosen]
    counts["compared_with"] = {name: len(rows) for name, rows in sets.items()}
    return Material(
        rows=texts,
        real=[record.text for record in real],
        places=places,
        labels=labels,
        prompts=prompts,
        clean=config.clean,
        counts=counts,
        digests=digests,
    )


def _split_as_trained(dataset: Dataset, config: DataConfig, classifier: RunModel | None) -> dict[str, list[Record]]:
    """Return the clean rows of a data set, split as the classifier's run split them."""
    rows = {name: list(clean_records(part, config.clean)) for name, part in dataset.splits.items()}
    is_whole = find_set_to_split(rows) is not None and config.leaks != "keep"
    trained = NONE if classifier is None else read_trained_rows(classifier.folder).inherited
    parts = split_dataset(rows, config, similar=find_similar_texts(rows) if is_whole else None, trained=trained)
    return {"train": parts.train, "validation": parts.validation, "test": parts.test}


def begin_conditional(label: str) -> str:
    """Return the beginning of a row that asks for a class."""
    return f"{label}:"


def write_conditional(label: str, text: str) -> str:
    """Return a row of a class, as a conditional language model learns it."""
    return f"{begin_conditional(label)} {text}"


def digest_classifier(classifier: RunModel) -> str:
    """Return one SHA-256 of everything that a run trained."""
    folder = classifier.folder
    files = sorted(folder.adapter.glob("*.safetensors")) or sorted(folder.path.glob("*.safetensors"))
    if folder.head.exists() and folder.head not in files:
        files.append(folder.head)
    return digest_parts(*[digest_file(path) for path in files], repr(classifier.temperature))


def _choose_columns(path: str, columns: Columns) -> Columns:
    """Return the columns of the data if a file has them; otherwise they are found by name."""
    if not columns.text:
        return Columns()
    try:
        next(iter(iter_records(path, Columns(columns.text))), None)
    except DataError:
        return Columns()
    return Columns(columns.text)


def _digest_prompts(path: Path | None) -> str:
    content = read_shipped_prompts().encode() if path is None else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _choose_rows(
    sets: Mapping[str, Sequence[Record]], inputs: Inputs, settings: GenerateSettings, progress: Progress
) -> tuple[list[Record], JsonObject]:
    """Return the rows to train the language model on, and the counts of rows left out by reason."""
    name = "train" if settings.conditional else "target"
    rows = [record for record in sets.get(name, ()) if record.text.strip()]
    if settings.conditional:
        rows = [record for record in rows if record.label is not None]
    held_out = ("validation", "test") if settings.conditional else ("test",)
    against = {other: sets[other] for other in (*held_out, *inputs.tests) if sets.get(other)}
    found: dict[str, dict[str, int]] = {}
    leaking: set[str] = set()
    if rows and against:
        progress.start("compare")
        report = check_records({"rows": rows}, None, against=against)
        progress.finish()
        for leak in report.leaks:
            if leak.kind != "column":
                found.setdefault(leak.right, {})[leak.kind] = leak.num_records
        leaking = set(report.leaking_ids("rows"))
    kept = [record for record in rows if record.id not in leaking]
    counts = {
        "rows": {
            "from": name,
            "num_rows": len(sets.get(name, ())),
            "num_blank_or_unlabelled": len(sets.get(name, ())) - len(rows),
            "num_in_test": len(leaking),
            "found_in": found,
            "num_used": len(kept),
        }
    }
    return kept, counts
