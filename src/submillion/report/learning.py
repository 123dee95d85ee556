"""Whether a run learnt anything, and whether the baseline did better: said first, with the likely reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from submillion.metrics.stats import find_mcnemar_p
from submillion.report.formatting import count, percent, points
from submillion.run.history import RunHistory
from submillion.storage.json_shapes import JsonObject

SIGNIFICANT = 0.05
FEW_STEPS = 100
FEW_ROWS_A_CLASS = 20
FEW_JUDGED = 50
LARGE_SHARE = 0.2
"""Share of the tokens that are unknown, or of the texts that are cut or empty, from which it explains a failure."""


def judge_run(run: RunHistory) -> JsonObject:
    """Return what has to be said before all figures of a run.

    Whether the model is better than always answering the largest class is McNemar's exact test on the same rows.

    Args:
        run: A finished run.

    Returns:
        ``split`` that is judged, test where there is one; ``learnt``, whether the model is better than the largest
        class; ``largest_class_share``, 0..1; ``baseline_wins``, None without a baseline; ``sentences``, none where all
        is well. Empty where nothing was evaluated.
    """
    split = run.main_split
    if split is None:
        return {}
    result, baseline = run.results[split], run.baselines.get(split)
    confusion = np.array(result["confusion"])
    sizes, right = confusion.sum(axis=1), np.diag(confusion)
    largest = int(sizes.argmax())
    gained, lost = int(right.sum() - right[largest]), int(sizes[largest] - right[largest])
    learnt = gained > lost and find_mcnemar_p(gained, lost) < SIGNIFICANT
    share = float(sizes[largest] / sizes.sum())
    paired = baseline.get("comparison") if baseline else None
    wins = paired is not None and paired["difference"] < 0 and paired["mcnemar_p"] < SIGNIFICANT
    sentences = []
    if not learnt:
        name = run.labels[largest] if largest < len(run.labels) else str(largest)
        sentences.append(
            "This run has not shown that it learnt anything: it is right on "
            f"{percent(result['accuracy'])} of the {count(result['num_records'])} {split} rows, and always "
            f"answering {name!r} would be right on {percent(share)}. {next(_iter_reasons(run, split))}"
        )
    if paired is not None and wins:
        lead = points(-paired["difference"]).lstrip("+")
        sentences.append(
            f"The TF-IDF baseline is better than this model by {lead} points on the same {split} rows"
            f"{_explain_cut(run)}."
        )
    return {
        "split": split,
        "learnt": bool(learnt),
        "largest_class_share": share,
        "baseline_wins": wins if baseline else None,
        "sentences": sentences,
    }


def _iter_reasons(run: RunHistory, split: str) -> Iterator[str]:
    """Yield the reasons that fit why nothing was learnt, the likeliest first."""
    read = _find_legibility(run)
    if read["unknown"] >= LARGE_SHARE:
        shown = percent(read["unknown"])
        yield (
            f"The likely reason is that the base model cannot read these texts, of whose tokens {shown} are unknown to "
            "it: choose another one."
        )
    if read["empty"] >= LARGE_SHARE:
        yield f"The likely reason is that {percent(read['empty'])} of the training rows hold no text."
    losses = run.steps.get("loss", np.empty(0))
    known = run.train_sample["accuracy"] if run.train_sample else None
    num_train, num_classes = run.data.get("num_train"), max(len(run.labels), 2)
    if known is not None and known > max(0.8, 1.5 / num_classes):
        rows = f"{count(num_train)} training rows" if num_train is not None else "the training rows"
        yield (
            f"It knows its training rows ({percent(known)}) and no others: {rows} are too few, or the labels do "
            "not follow from the texts."
        )
    if read["cut"] >= LARGE_SHARE:
        shown = percent(read["cut"])
        yield (
            f"The likely reason is the length of the texts, of which {shown} are cut: raise model.max_length or set "
            "model.long_texts."
        )
    shown = "" if run.config is None else f" ({run.config.train.learning_rate:g})"
    if 0 < len(losses) < FEW_STEPS:
        yield (
            f"The likely reason is the number of optimizer steps, {len(losses)}, at this learning rate{shown}: raise "
            "train.epochs, train.max_steps or train.learning_rate."
        )
    if num_train is not None and num_train < FEW_ROWS_A_CLASS * num_classes:
        yield f"The likely reason is the number of training rows, {count(num_train)} for {num_classes} classes."
    if int(run.results[split]["num_records"]) < FEW_JUDGED:
        yield "The rows that it is judged on may be too few to show more."
    if len(losses) >= FEW_STEPS and float(np.mean(losses[-5:])) > float(np.mean(losses[:5])):
        yield f"The training loss rose: the learning rate{shown} is likely too high."
    yield f"The likely reason is the learning rate{shown}: the training loss hardly fell; try higher and lower ones."


def _find_legibility(run: RunHistory) -> dict[str, float]:
    """Return the shares of unknown tokens, cut texts and empty rows in training, 0..1; 0 where nothing is known."""
    train = run.findings["splits"].get("train") if run.findings else None
    if train is None:
        return {"unknown": 0.0, "cut": 0.0, "empty": 0.0}
    num_records = max(train["num_records"], 1)
    return {
        "unknown": float((train.get("legibility") or {}).get("unknown_share") or 0),
        "cut": train.get("too_long", {}).get("num_records", 0) / num_records,
        "empty": train.get("empty", {}).get("num_records", 0) / num_records,
    }


def _explain_cut(run: RunHistory) -> str:
    cut = _find_legibility(run)["cut"]
    return f"; it reads texts whole, of which {percent(cut)} are cut for the model" if cut >= LARGE_SHARE else ""
