"""Evaluation of a trained run on labelled records; evaluations on the run's test rows are counted."""

from __future__ import annotations

from collections.abc import Sequence

from submillion.data.clean import clean_records
from submillion.metrics.evaluate import Evaluation, evaluate_logits
from submillion.progress import Progress, Silent
from submillion.records import Record, hash_records, labels_of
from submillion.run.reader import count_test_evaluation, read_data_report
from submillion.scoring.run_model import RunModel


def evaluate_run(model: RunModel, records: Sequence[Record], *, progress: Progress | None = None) -> Evaluation:
    """Evaluate a run on labelled records.

    If these are the run's test rows, the manifest counts one more test evaluation. If the folder cannot be written, a
    note says that it was not counted.
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
