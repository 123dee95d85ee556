"""Whether a run learnt anything, and whether the baseline did better: said first, with the likely reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from submillion.metrics.stats import find_mcnemar_p
from submillion.report import words
from submillion.run.history import LoadedRun

SIGNIFICANT = 0.05
FEW_STEPS = 100
FEW_ROWS_A_CLASS = 20
FEW_JUDGED = 50
LARGE_SHARE = 0.2
"""Share of the tokens that are unknown, or of the texts that are cut or empty, from which it explains a failure."""


def judge_run(run: LoadedRun) -> dict[str, Any]:
    """Return what has to be said before all figures of a run.

    Whether the model is better than always answering the largest class is McNemar's exact test on the same rows.

    Args:
        run: A finished run.

    Returns:
        ``split`` that is judged, test where there is one; ``learnt``, whether the model is better than the largest
        class; ``largest_class_share``, 0..1; ``baseline_wins``, None without a baseline; ``sentences``, none where all
        is well. Empty where nothing was evaluated.
    """
    split = next(iter(run.results), None)
    if split is None or "confusion" not in run.results[split]:
        return {}
    result, baseline = run.results[split], run.baselines.get(split) or {}
    confusion = np.array(result["confusion"])
    sizes, right = confusion.sum(axis=1), np.diag(confusion)
    largest = int(sizes.argmax())
    gained, lost = int(right.sum() - right[largest]), int(sizes[largest] - right[largest])
    learnt = gained > lost and find_mcnemar_p(gained, lost) < SIGNIFICANT
    share = float(sizes[largest] / sizes.sum())
    comparison = baseline.get("comparison") or {}
    wins = bool(comparison) and comparison["difference"] < 0 and comparison["mcnemar_p"] < SIGNIFICANT
    sentences = []
    if not learnt:
        name = run.labels[largest] if largest < len(run.labels) else str(largest)
        sentences.append(
            "This run has not shown that it learnt anything: it is right on "
            f"{words.percent(result['accuracy'])} of the {words.count(result['num_records'])} {split} rows, and always "
            f"answering {name!r} would be right on {words.percent(share)}. {next(_iter_reasons(run, split))}"
        )
    if wins:
        points = words.points(-comparison["difference"]).lstrip("+")
        sentences.append(
            f"The TF-IDF baseline is better than this model by {points} points on the same {split} rows"
            f"{_explain_cut(run)}."
        )
    return {
        "split": split,
        "learnt": bool(learnt),
        "largest_class_share": share,
        "baseline_wins": wins if baseline else None,
        "sentences": sentences,
    }


def _iter_reasons(run: LoadedRun, split: str) -> Iterator[str]:
    """Yield the reasons that fit why nothing was learnt, the likeliest first."""
    read = _find_legibility(run)
    if read["unknown"] >= LARGE_SHARE:
        shown = words.percent(read["unknown"])
        yield (
            f"The likely reason is that the base model cannot read these texts, of whose tokens {shown} are unknown to "
            "it: choose another one."
        )
    if read["empty"] >= LARGE_SHARE:
        yield f"The likely reason is that {words.percent(read['empty'])} of the training rows hold no text."
    losses = run.steps.get("loss", np.empty(0))
    known, num_train, num_classes = run.train_sample.get("accuracy"), run.data.get("num_train"), max(len(run.labels), 2)
    if known is not None and known > max(0.8, 1.5 / num_classes):
        rows = f"{words.count(num_train)} training rows" if isinstance(num_train, int) else "the training rows"
        yield (
            f"It knows its training rows ({words.percent(known)}) and no others: {rows} are too few, or the labels do "
            "not follow from the texts."
        )
    if read["cut"] >= LARGE_SHARE:
        shown = words.percent(read["cut"])
        yield (
            f"The likely reason is the length of the texts, of which {shown} are cut: raise model.max_length or set "
            "model.long_texts."
        )
    rate = (run.config.get("train") or {}).get("learning_rate")
    shown = "" if rate is None else f" ({rate:g})"
    if 0 < len(losses) < FEW_STEPS:
        yield (
            f"The likely reason is the number of optimizer steps, {len(losses)}, at this learning rate{shown}: raise "
            "train.epochs, train.max_steps or train.learning_rate."
        )
    if isinstance(num_train, int) and num_train < FEW_ROWS_A_CLASS * num_classes:
        yield f"The likely reason is the number of training rows, {words.count(num_train)} for {num_classes} classes."
    if int(run.results[split]["num_records"]) < FEW_JUDGED:
        yield "The rows that it is judged on may be too few to show more."
    if len(losses) >= FEW_STEPS and float(np.mean(losses[-5:])) > float(np.mean(losses[:5])):
        yield f"The training loss rose: the learning rate{shown} is likely too high."
    yield f"The likely reason is the learning rate{shown}: the training loss hardly fell; try higher and lower ones."


def _find_legibility(run: LoadedRun) -> dict[str, float]:
    """Return the shares of unknown tokens, cut texts and empty rows in training, 0..1; 0 where nothing is known."""
    findings: Mapping[str, Any] = run.data.get("check") or {}
    train: Mapping[str, Any] = (findings.get("splits") or {}).get("train") or {}
    known: Mapping[str, Any] = train.get("legibility") or {}
    num_records = max(int(train.get("num_records") or 0), 1)
    return {
        "unknown": float(known.get("unknown_share") or 0),
        "cut": float((train.get("too_long") or {}).get("num_records") or 0) / num_records,
        "empty": float((train.get("empty") or {}).get("num_records") or 0) / num_records,
    }


def _explain_cut(run: LoadedRun) -> str:
    cut = _find_legibility(run)["cut"]
    return f"; it reads texts whole, of which {words.percent(cut)} are cut for the model" if cut >= LARGE_SHARE else ""
