"""The runners of the measured processes, run in this process: rounds are whole, and all do the same work."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.child import MeasuredProcess
from benchmarks.flops import Lengths
from benchmarks.measured_child import Gate, Job, Round
from benchmarks.prepare_peers import prepare
from benchmarks.row_source import read_rows, take_rows, write_rows
from benchmarks.worker import find_runner
from submillion.model.sources import load_base_config

NUM_ROUNDS = 2
ROUND_ROWS = 16
PLAIN = {"mixed": None, "weights": "float32", "attention": None, "pad_to": None, "micro_batch": 4}
pytestmark = pytest.mark.filterwarnings(
    # Of peft's and transformers' own making.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:.*pin_memory.*:UserWarning",
)


@dataclass(frozen=True)
class Outcome:
    """The messages of a runner."""

    rounds: list[Round]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def job(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job on a tiny base, whose folder holds a trained run and its merged stock form."""
    folder = tmp_path_factory.mktemp("bench")
    rows = folder / "rows.jsonl"
    write_rows(take_rows(read_rows(None), ROUND_ROWS * (NUM_ROUNDS + 1))[0], rows)
    job = Job(
        runner="prepare",
        options={"name": "tiny", "random": None, "run": True, "merged": True, "onnx": False},
        base=str(tiny_base("bert")),
        folder=str(folder),
        rows=str(rows),
        num_warmup=ROUND_ROWS,
        num_rounds=NUM_ROUNDS,
        round_rows=ROUND_ROWS,
        batch_size=8,
        max_length=40,
        threads=1,
        device="cpu",
        dropout=None,
        num_labels=4,
    )
    prepare(job, Gate(io.StringIO(), io.StringIO()))
    return job


def run(job: Job, runner: str, **options: Any) -> Outcome:
    answers = io.StringIO()
    chosen = replace(job, runner=runner, options=options)
    facts = find_runner(runner)(chosen, Gate(io.StringIO("go\n" * NUM_ROUNDS), answers))
    first, *rounds = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert first == {"ready": True}
    return Outcome([Round.parse(values) for values in rounds], dict(facts))


def list_lengths(outcome: Outcome) -> list[tuple[int, int]]:
    return [(part.lengths.num_tokens, part.lengths.num_squares) for part in outcome.rounds]


def test_training_reports_whole_rounds_of_all_rows(job: Job) -> None:
    ours = run(job, "train", precision="fp32")
    assert [part.num_rows for part in ours.rounds] == [ROUND_ROWS] * NUM_ROUNDS
    assert all(part.seconds > 0 for part in ours.rounds)
    assert ours.facts["precision"] == "fp32"
    assert ours.facts["peak_rss_bytes"] > 0


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        PLAIN | {"pad_to": 40},
        PLAIN | {"mixed": "bf16", "micro_batch": 8},
        PLAIN | {"weights": "bfloat16", "attention": "eager"},
    ],
    ids=["grouped", "padded", "mixed", "tuned"],
)
def test_the_trainer_reads_the_same_rows_as_this_package(job: Job, options: dict[str, Any]) -> None:
    theirs = run(job, "trainer", **options)
    assert [part.num_rows for part in theirs.rounds] == [ROUND_ROWS] * NUM_ROUNDS
    ours = run(job, "train", precision="fp32")
    # Each has its own order, so that only an epoch's sums can agree.
    for column in range(2):
        assert sum(pair[column] for pair in list_lengths(theirs)) == sum(pair[column] for pair in list_lengths(ours))


def test_a_round_of_the_trainer_counts_its_own_batches_not_those_fetched_ahead(job: Job) -> None:
    from benchmarks.trainer_peer import _Rounds

    answers = io.StringIO()
    fetched = SimpleNamespace(seen=deque(Lengths(number, 0) for number in (1, 2, 4, 8, 16)))
    callback = _Rounds(job, Gate(io.StringIO("go\n"), answers), cast(Any, fetched))
    arguments, control = SimpleNamespace(gradient_accumulation_steps=2), SimpleNamespace()
    for _ in range(ROUND_ROWS // job.batch_size):
        callback.on_step_begin()
        callback.on_step_end(arguments, None, control)
    assert Round.parse(json.loads(answers.getvalue())).lengths == Lengths(1 + 2 + 4 + 8, 0)
    assert list(fetched.seen) == [Lengths(16, 0)]
    assert control.should_training_stop is False


def test_all_that_score_read_the_same_tokens_and_give_the_same_labels(job: Job) -> None:
    ours = run(job, "score", precision=None)
    outcomes = [run(job, "pipeline", batch_size=4), run(job, "padded", weights="float32", batch_size=4)]
    for theirs in outcomes:
        assert list_lengths(theirs) == list_lengths(ours)
        assert [part.predicted for part in theirs.rounds] == [part.predicted for part in ours.rounds]
    labels = [label for part in ours.rounds for label in part.predicted or ()]
    assert len(labels) == NUM_ROUNDS * ROUND_ROWS
    assert len(set(labels)) > 1


@pytest.mark.filterwarnings("ignore")  # the exporter itself gives a dozen
def test_onnx_runtime_gives_the_same_labels(job: Job) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="benchmarks/requirements.txt is not installed")
    options = {"name": "tiny", "random": None, "run": False, "merged": False, "onnx": True}
    prepare(replace(job, options=options), Gate(io.StringIO(), io.StringIO()))
    ours = run(job, "score", precision=None)
    full = run(job, "onnxruntime", name="fp32", batch_size=4)
    assert [part.predicted for part in full.rounds] == [part.predicted for part in ours.rounds]
    assert len(run(job, "onnxruntime", name="int8", batch_size=4).rounds) == NUM_ROUNDS


def test_the_random_base_has_the_architecture_and_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModel, AutoTokenizer

    from benchmarks import prepare_peers as module

    small = {**load_base_config("roberta-base"), "num_hidden_layers": 1, "hidden_size": 24}
    monkeypatch.setattr(module, "load_base_config", lambda _: small | {"intermediate_size": 24})
    folder = module.make_random_base("roberta-base-random", tmp_path / "base")
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    assert model.config.model_type == "roberta"
    again = AutoModel.from_pretrained(module.make_random_base("roberta-base-random", tmp_path / "again"))
    assert torch.equal(model.encoder.layer[0].output.dense.weight, again.encoder.layer[0].output.dense.weight)
    ids = AutoTokenizer.from_pretrained(folder)(["Any text at all."], return_tensors="pt")["input_ids"]
    assert int(ids.max()) < model.config.vocab_size
    assert model(ids).last_hidden_state.isfinite().all()


def test_tokenising_counts_rows_and_busy_processors(job: Job) -> None:
    outcome = run(job, "encode")
    assert [part.num_rows for part in outcome.rounds] == [ROUND_ROWS] * NUM_ROUNDS
    assert all(part.figures["cores"] > 0 for part in outcome.rounds)


def test_a_run_is_timed_up_to_its_first_step(job: Job) -> None:
    with MeasuredProcess("begin", replace(job, runner="begin", options={})) as process:
        facts = process.finish()
    assert facts["seconds"] > 0
    assert not list(Path(job.folder).glob("tmp*/checkpoints/*"))


def test_the_peak_names_product_and_shape(job: Job) -> None:
    outcome = run(job, "peak", precisions=["fp32"])
    peak = outcome.facts["peaks"]["fp32"]
    rates = [part.figures["gflops"]["fp32"] for part in outcome.rounds]
    assert peak["gflops"] == max(rates)
    assert peak["method"] in {"F.linear", "mm", "mkldnn prepacked"}
    assert len(peak["shape"]) == 3
