"""Other ways to score the merged model, each as its users do: from raw texts to labels, including tokenising."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.clock import Clock
from benchmarks.flops import Lengths
from benchmarks.measured_child import Gate, Job, Round
from benchmarks.onnx_export import INPUT_NAMES, find_export
from benchmarks.row_source import load_rows

ScoreTexts = Callable[[list[str]], list[int]]


def score_pipeline(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Score with ``pipeline("text-classification")``, with batches in the order of the texts."""
    from transformers import pipeline

    classify = pipeline(
        "text-classification",
        model=str(_merged(job)),
        batch_size=job.options["batch_size"],
        device=0 if job.device == "cuda" else -1,
    )
    ids = {str(name): int(label) for name, label in (classify.model.config.label2id or {}).items()}

    def score(texts: list[str]) -> list[int]:
        return [ids[str(answer["label"])] for answer in classify(texts, truncation=True, max_length=job.max_length)]

    return _make_rounds(job, gate, score)


def score_padded(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Score in a plain loop, with texts sorted by length and batches padded to their longest."""
    from transformers import AutoModelForSequenceClassification

    dtype = getattr(torch, job.options["weights"])
    model = AutoModelForSequenceClassification.from_pretrained(_merged(job), dtype=dtype).to(job.device).eval()

    def run(batch: Mapping[str, Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            inputs = {name: torch.as_tensor(value, device=job.device) for name, value in batch.items()}
            logits: NDArray[np.float32] = model(**inputs).logits.float().cpu().numpy()
            return logits

    return _make_rounds(job, gate, _sort_and_pad(job, run))


def score_onnxruntime(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Score with ONNX Runtime on the exported model, in the same batches; the option ``name`` is its precision."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    path = find_export(Path(job.folder), job.options["name"])
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch: Mapping[str, Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {name: batch[name] for name in INPUT_NAMES})[0]
        return logits

    return _make_rounds(job, gate, _sort_and_pad(job, run))


def encode_sentences(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Embed with sentence-transformers' ``encode``, which sorts by length itself and gives no labels."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job.base, device=job.device)
    model.max_seq_length = job.max_length

    def score(texts: list[str]) -> list[int]:
        model.encode(texts, batch_size=job.options["batch_size"], show_progress_bar=False)
        return []

    return _make_rounds(job, gate, score)


def _merged(job: Job) -> Path:
    return Path(job.folder) / "merged"


def _sort_and_pad(job: Job, run: Callable[[Mapping[str, Any]], NDArray[np.float32]]) -> ScoreTexts:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_merged(job))
    size = job.options["batch_size"]

    def score(texts: list[str]) -> list[int]:
        ids = tokenizer(texts, truncation=True, max_length=job.max_length)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: len(ids[row]))
        labels = [0] * len(texts)
        for first in range(0, len(order), size):
            part = order[first : first + size]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in part]}, return_tensors="np")
            for row, label in zip(part, run(batch).argmax(axis=1).tolist(), strict=True):
                labels[row] = label
        return labels

    return score


def _make_rounds(job: Job, gate: Gate, score: ScoreTexts) -> Mapping[str, Any]:
    from transformers import AutoTokenizer

    rows = load_rows(Path(job.rows))
    texts = [row.text for row in rows]
    lengths = _count_tokens(AutoTokenizer.from_pretrained(job.base), texts, job.max_length)
    score(texts[: job.num_warmup])
    gate.say_ready()
    clock = Clock(job.device)
    for number in range(job.num_rounds):
        span = slice(job.num_warmup + number * job.round_rows, job.num_warmup + (number + 1) * job.round_rows)
        gate.wait()
        clock.start()
        labels = score(texts[span])
        seconds = clock.stop()
        gate.report(Round(seconds, job.round_rows, Lengths.of(lengths[span]), labels or None))
    return {}


def _count_tokens(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[int]:
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [len(ids) for ids in encoded]
