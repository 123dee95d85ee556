"""Run folders as training leaves them, written in a moment from drawn figures: what reports are tested on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from submillion.budget.plan import make_plan
from submillion.config.run import dump_config, parse_config
from submillion.data.check import check_records
from submillion.data.legibility import TokenCounts
from submillion.metrics.evaluate import compare_correct, evaluate_logits, fit_temperature
from submillion.model.sources import load_base_config
from submillion.records import LabelSet, Record
from submillion.run.folder import RunDir
from submillion.storage.files import write_json, write_text

NAMES = ("World", "Sports", "Business", "Sci/Tech")
SUBJECTS = {
    0: "The border talks in Geneva ended without a treaty after ministers from four countries left the table early.",
    1: "A late header by the substitute defender gave the visitors their first win at the old ground in nine seasons.",
    2: "Shares of the shipping group fell six percent after it warned that profit would miss forecasts this quarter.",
    3: "Engineers tested a probe that folds its solar panels like paper before it lands on a small and icy moon.",
}


def _write_texts(labels: np.ndarray, random: np.random.Generator) -> list[str]:
    texts = []
    for number, label in enumerate(labels.tolist()):
        words = SUBJECTS[label % 4].split()
        kept = random.permutation(words)[: random.integers(6, len(words))]
        texts.append(" ".join([*kept, f"({number})"]) if number % 17 else " ".join([*words, *kept, *kept]))
    return texts


def _draw_logits(labels: np.ndarray, num_labels: int, skill: float, random: np.random.Generator) -> np.ndarray:
    logits = random.normal(0, 1, (len(labels), num_labels))
    logits[np.arange(len(labels)), labels] += skill
    logits[:, -1] += 0.8 * (labels == num_labels - 2)  # one pair of classes is confused more than others
    return 2.4 * logits


def write_run(
    folder: Path,
    *,
    names: tuple[str, ...] = NAMES,
    num_records: int = 400,
    num_steps: int = 240,
    seed: int = 0,
    skill: float = 2.9,
    splits: tuple[str, ...] = ("test", "validation", "bbc"),
    overrides: dict[str, Any] | None = None,
    spoiler: str = "",
) -> Path:
    """Write a finished run.

    Args:
        folder: Folder to write.
        names: Classes.
        num_records: Rows of each evaluated split.
        num_steps: Steps in the log.
        seed: Seed for the configuration and the drawn figures.
        skill: How far the model's logits lead to the truth.
        splits: Splits and watched sets that were evaluated.
        overrides: Settings on top of the defaults.
        spoiler: Put into a text, a source and a note: what a hostile file might hold.
    """
    run, random = RunDir(folder), np.random.default_rng(seed)
    label_set = LabelSet(names)
    settings: dict[str, Any] = {"name": "agnews-minilm", "seed": seed, "about": "AG News with a small encoder."}
    settings |= {"model": {"max_length": 64}, "train": {"head_learning_rate": 3e-3, "batch_size": 64}}
    config = parse_config(settings | (overrides or {}), where="test")
    write_text(run.config, dump_config(config))
    plan = make_plan(
        load_base_config("minilm-l6"),
        base="minilm-l6",
        num_labels=len(names),
        model=config.model,
        adapter=config.adapter,
        budget=config.budget,
    )
    write_json(run.plan, plan.to_json())
    _write_log(run, splits, num_steps, random, spoiler)
    truth = np.random.default_rng(7).integers(0, len(names), num_records)  # the same rows for every seed
    texts = _write_texts(truth, np.random.default_rng(7))
    texts[0] += spoiler
    records = [Record(str(n), (text,), int(truth[n]), f"rows.csv:{n + 1}") for n, text in enumerate(texts)]
    _write_data(run, records, label_set)
    held_out = _draw_logits(truth, len(names), skill, random)
    temperature = fit_temperature(held_out, truth)
    if splits:
        known = {"num_records": 150, "num_train": 195, "seed": seed, "accuracy": 0.98, "loss": 0.1}
        write_json(run.evaluation("train.sample"), known | {"accuracy_interval": [0.943, 0.993]})
    for split in splits:
        logits = _draw_logits(truth, len(names), skill - 0.7 * (split == "bbc"), random)
        if spoiler:
            logits[0] = 50.0 * (np.arange(len(names)) == (truth[0] + 1) % len(names))  # the surest error of all
        evaluation = evaluate_logits(logits, truth, label_set, temperature=temperature, num_truncated=12)
        write_json(run.evaluation(split), evaluation.to_json() | {"split": split, "predictions_sha256": "0" * 64})
        _write_predictions(run.predictions(split), logits / temperature, records, label_set, spoiler)
        if split != "validation":
            other = _draw_logits(truth, len(names), skill - 0.3, random)
            compared = compare_correct(logits.argmax(1) == truth, other.argmax(1) == truth)
            figures = evaluate_logits(other, truth, label_set).to_json()
            write_json(run.evaluation(f"{split}.baseline"), figures | {"comparison": compared.to_json()})
    write_json(
        run.manifest,
        {
            "run_format": 1,
            "state": "complete",
            "created": "2026-11-21T03:00:00+00:00",
            "seed": seed,
            "base": {"name": "minilm-l6", "origin": "package", "revision": None, "weights_sha256": "53aa" * 16},
            "precision": "bf16",
            "threads": 2,
            "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"},
            "machine": {"processor": "a processor", "instructions": ["avx512_bf16"], "num_cores": 2},
            "num_test_evaluations": 1,
            "temperature": temperature,
            "train_s": 0.56 * num_steps,
            "rows_per_s": 117.5,
        },
    )
    return folder


def _write_log(run: RunDir, splits: tuple[str, ...], num_steps: int, random: np.random.Generator, spoiler: str) -> None:
    lines: list[dict[str, Any]] = []
    every = max(1, num_steps // 6)
    for step in range(1, num_steps + 1):
        done = step / num_steps
        rate = min(step / (0.06 * num_steps), (1 - done) / 0.94)
        lines.append(
            {
                "kind": "step",
                "step": step,
                "epoch": 3 * done,
                "loss": 0.19 + 1.1 * float(np.exp(-14 * done)) + float(random.gamma(2, 0.03)),
                "learning_rate": 5e-4 * rate,
                "learning_rates": {"adapter_a": 5e-4 * rate, "adapter_b": 5e-4 * rate, "head": 3e-3 * rate},
                "num_right": int(random.binomial(64, 0.95 - 0.6 * float(np.exp(-14 * done)))),
                "grad_norm": float(random.lognormal(0.1, 0.35)),
                "num_records": 64,
                "num_tokens": 3400,
                "step_s": float(0.5 + random.gamma(2, 0.02)),
                "elapsed_s": 0.55 * step,
            }
        )
        if step % every == 0:
            for split in ("validation", *(name for name in splits if name not in ("test", "validation"))):
                figure = 0.937 - 0.05 * float(np.exp(-4 * done)) - 0.06 * (split != "validation") * (0.5 + done)
                lines.append(
                    {
                        "kind": "evaluation",
                        "step": step,
                        "epoch": 3 * done,
                        "split": split,
                        "loss": 0.2 + 0.2 * float(np.exp(-5 * done)) + 0.03 * done,
                        "accuracy": figure,
                        "macro_precision": figure + 0.001,
                        "macro_recall": figure,
                        "macro_f1": figure - 0.001,
                        "elapsed_s": 0.55 * step + 3,
                        **({"best": True} if split == "validation" else {}),
                    }
                )
    lines.append({"kind": "note", "message": f"Training came to its end.{spoiler}"})
    write_text(run.log, "".join(json.dumps(line) + "\n" for line in lines))


def _write_data(run: RunDir, records: list[Record], label_set: LabelSet) -> None:
    parts = {"train": records[: len(records) // 2], "validation": records[len(records) // 2 :], "test": records[:5]}
    counts = {}
    for name, rows in parts.items():
        lengths = np.array([4 * len(record.text.split()) // 3 for record in rows], np.int32)
        counts[name] = TokenCounts(lengths, lengths // 50, lengths // 20, 2, "token")
    count_tokens = {name: (lambda name=name: counts[name]) for name in parts}
    report = check_records(parts, label_set, count_tokens=count_tokens, max_length=64)
    dropped = len(report.leaking_ids("train"))
    values = {
        "source": "news",
        "files": {"rows.csv": "9f2c" * 16},
        "labels": list(label_set.names),
        "split": "validation split off the training rows (stratified, seeded)",
        "num_train": len(parts["train"]) - dropped,
        "num_dropped_leaks": dropped,
        "leaks_setting": "drop",
        "check": report.to_json(),
    }
    write_json(run.data, values)


def _write_predictions(
    path: Path, logits: np.ndarray, records: list[Record], label_set: LabelSet, spoiler: str
) -> None:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    columns: dict[str, Any] = {
        "id": [record.id for record in records],
        "label": [label_set.names[record.label or 0] for record in records],
        "label_id": [record.label for record in records],
        "predicted_id": scores.argmax(axis=1),
        "predicted": [label_set.names[n] for n in scores.argmax(axis=1)],
        **{f"probability_{n}": scores[:, n].astype(np.float32) for n in range(len(label_set))},
        "text": [record.text for record in records],
        "source": [record.source + spoiler for record in records],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
