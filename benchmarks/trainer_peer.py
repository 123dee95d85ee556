"""transformers' Trainer with PEFT, set up as its users do."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.clock import Clock
from benchmarks.flops import Lengths
from benchmarks.measured_child import Gate, Job, Round
from benchmarks.prepare_peers import ADAPTER
from benchmarks.row_source import Row, load_rows


def load_adapter(stock: Any, folder: Path) -> Any:
    """Load a saved adapter onto a stock model, as PEFT's users do."""
    return PeftModel.from_pretrained(stock, folder)


def train(job: Job, gate: Gate) -> Mapping[str, Any]:
    """Train in rounds of steps.

    Options: ``mixed`` (the Trainer's mixed precision: bf16, fp16 or None), ``weights`` (dtype of the loaded model),
    ``attention`` (implementation, or None for the library's choice), ``pad_to`` (a fixed length, or None for the
    longest row of a batch, with rows grouped by length), ``micro_batch`` (records per pass, accumulated to the step).
    """
    options = job.options
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    dropouts = {} if job.dropout is None else dict.fromkeys(_DROPOUTS, job.dropout)
    chosen = {} if options["attention"] is None else {"attn_implementation": options["attention"]}
    stock = AutoModelForSequenceClassification.from_pretrained(
        job.base, num_labels=job.num_labels, dtype=getattr(torch, options["weights"]), **dropouts, **chosen
    )
    model = get_peft_model(
        stock,
        LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=ADAPTER["rank"],
            lora_alpha=ADAPTER["alpha"],
            target_modules=list(ADAPTER["targets"]),
            lora_dropout=job.dropout or 0.0,
        ),
    )
    rows = load_rows(Path(job.rows))
    items = _encode(rows, tokenizer, job, options["pad_to"])
    collate = _CountingCollator(tokenizer)

    def run(part: Sequence[Mapping[str, Any]], callback: TrainerCallback | None) -> None:
        callbacks = [] if callback is None else [callback]
        arguments = _make_arguments(job, options)
        trainer = Trainer(model=model, args=arguments, train_dataset=part, data_collator=collate, callbacks=callbacks)
        trainer.train()

    run(items[: job.num_warmup], None)
    collate.seen.clear()
    gate.say_ready()
    run(items[job.num_warmup :], _Rounds(job, gate, collate))
    return {}


_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def _make_arguments(job: Job, options: Mapping[str, Any]) -> TrainingArguments:
    mixed: dict[str, Any] = {} if options["mixed"] is None else {options["mixed"]: True}
    return TrainingArguments(
        output_dir=str(Path(job.folder) / "trainer"),
        per_device_train_batch_size=options["micro_batch"],
        gradient_accumulation_steps=job.batch_size // options["micro_batch"],
        num_train_epochs=1,
        train_sampling_strategy="random" if options["pad_to"] else "group_by_length",
        use_cpu=job.device == "cpu",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **mixed,
    )


def _encode(rows: Sequence[Row], tokenizer: Any, job: Job, pad_to: int | None) -> list[dict[str, Any]]:
    texts = [row.text for row in rows]
    length = min(pad_to or job.max_length, job.max_length)
    encoded = tokenizer(texts, truncation=True, max_length=length, padding="max_length" if pad_to else False)
    keys = ("input_ids", "attention_mask")
    return [{"labels": row.label, **{key: encoded[key][place] for key in keys}} for place, row in enumerate(rows)]


class _CountingCollator(DataCollatorWithPadding):
    """A collator that pads to the longest row, and keeps the real lengths of batches until their step is counted."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.seen: deque[Lengths] = deque()

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        self.seen.append(Lengths.of(sum(item["attention_mask"]) for item in features))
        return super().__call__(features)


class _Rounds(TrainerCallback):
    """A callback that waits before each round's first step and reports after its last."""

    def __init__(self, job: Job, gate: Gate, collate: _CountingCollator) -> None:
        self._job, self._gate, self._collate = job, gate, collate
        self._clock = Clock(job.device)
        self._steps = self._rounds = 0
        self._per_round = job.round_rows // job.batch_size

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait if a round begins."""
        if self._steps % self._per_round == 0:
            self._gate.wait()
            self._clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Report if a round ends, and stop after the last."""
        self._steps += 1
        if self._steps % self._per_round == 0:
            seconds = self._clock.stop()
            lengths = Lengths()
            for _batch in range(self._per_round * args.gradient_accumulation_steps):
                lengths += self._collate.seen.popleft()
            self._gate.report(Round(seconds, self._per_round * self._job.batch_size, lengths))
            self._rounds += 1
            control.should_training_stop = self._rounds == self._job.num_rounds
        return control
