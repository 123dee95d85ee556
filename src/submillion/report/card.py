"""The model card of a run: what it is, how good it is known to be, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from submillion import __version__
from submillion.data.long_texts import describe_rule
from submillion.data.synthetic import describe_file
from submillion.model.known_bases import find_known_base
from submillion.plain_text import clean_controls, escape_markdown, quote_code
from submillion.report import headline, words
from submillion.report.data_findings import find_report
from submillion.report.learning import judge_run
from submillion.run.folder import RunDir
from submillion.run.history import LoadedRun, load_run
from submillion.run.shapes import damage_is_run_error
from submillion.storage.files import write_text


def write_card(run: Path) -> Path:
    """Write the model card of a run as ``README.md`` in its folder.

    Args:
        run: The run folder.

    Returns:
        The file.

    Raises:
        RunError: No run folder, or a damaged file in it.
    """
    loaded = load_run(run)
    with damage_is_run_error(run):
        text = _describe_run(loaded)
    file = RunDir(run).card
    write_text(file, text)
    return file


def _describe_run(loaded: LoadedRun) -> str:
    parts = [
        _describe_metadata(loaded),
        f"# {escape_markdown(str(loaded.config.get('name', loaded.title)))}",
        _describe_model(loaded),
        "## Figures",
        _describe_figures(loaded),
        "## Parameters",
        _describe_parameters(loaded),
        "## Data",
        _describe_data(loaded),
        "## Intended use and limits",
        _describe_limits(loaded),
        "## Loading it",
        _describe_loading(loaded),
        f"*Written by submillion {__version__}; report.html shows the curves, errors and settings behind it.*",
    ]
    return clean_controls("\n\n".join(part for part in parts if part)) + "\n"


def _find_base(run: LoadedRun) -> tuple[str, str | None]:
    name = str((run.config.get("model") or {}).get("base", "unknown"))
    revision = None if run.manifest is None else run.manifest.base.revision
    known = find_known_base(name)
    return (known.repo, revision or known.revision) if known else (name, revision)


def _describe_metadata(run: LoadedRun) -> str:
    repo, _ = _find_base(run)
    # JSON strings are YAML strings, whatever stands in them.
    lines = [
        "library_name: peft",
        "pipeline_tag: text-classification",
        f"base_model: {json.dumps(repo, ensure_ascii=False)}",
        "tags: [text-classification, lora, submillion]",
    ]
    return "\n".join(["---", *lines, "---"])


def _describe_model(run: LoadedRun) -> str:
    repo, revision = _find_base(run)
    model = run.config.get("model") or {}
    head = (
        "the architecture's own head"
        if model.get("head") == "native"
        else f"a linear head on the {escape_markdown(model.get('pooling', 'mean'))} state"
    )
    pinned = f" at revision {quote_code(revision)}" if revision else ""
    names = ", ".join(escape_markdown(label) for label in run.labels)
    text = f"A text classifier: {escape_markdown(repo)}{pinned}, frozen, with low-rank adapters and {head}."
    if names:
        text += f" Its {len(run.labels)} classes, in label order: {names}."
    about = escape_markdown(str(run.config.get("about") or ""))
    return f"{text}\n\n{about}" if about else text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _describe_figures(run: LoadedRun) -> str:
    if not run.results:
        return "This run has not been evaluated; nothing is known of its quality."
    rows = []
    for split, result in run.results.items():
        baseline = run.baselines.get(split)
        rows.append(
            [
                escape_markdown(split),
                words.count(result["num_records"]),
                f"{words.percent(result['accuracy'])} ({words.percent_range(result['accuracy_interval'])})",
                f"{words.percent(result['macro_f1'])} ({words.percent_range(result['macro_f1_interval'])})",
                words.percent(result["ece"]),
                words.percent(baseline["accuracy"]) if baseline else "\N{EN DASH}",
            ]
        )
    head = ["set", "records", "accuracy", "macro-F1", "calibration error", "baseline accuracy"]
    sentences = [*map(escape_markdown, judge_run(run).get("sentences", ()))]
    sentences += [headline.describe_baseline(next(iter(run.results)), run)]
    looks = headline.count_test_evaluations(run)
    if looks is not None:
        sentences.append(f"The test split was evaluated {'once' if looks == 1 else f'{looks} times'} by this run.")
    sentences.append(
        "In parentheses: 95\u202f% intervals, Wilson's for accuracy, bootstrap for macro-F1. "
        f"The baseline is {headline.BASELINE}, trained on the same rows."
    )
    return f"{_table(head, rows)}\n\n{' '.join(sentences)}"


def _describe_parameters(run: LoadedRun) -> str:
    plan = run.plan
    if not plan:
        return "The run has no plan."
    parts = [
        ["adapter", words.count(plan["adapter_params"])],
        ["head", words.count(plan["head_params"])],
        ["biases", words.count(plan["bias_params"])],
        ["**trainable**", f"**{words.count(plan['trainable_params'])}**"],
        ["budget, never reached", words.count(plan["budget"])],
        ["all parameters", words.count(plan["total_params"])],
    ]
    return _table(["part", "parameters"], parts)


def _describe_data(run: LoadedRun) -> str:
    lines = []
    report = find_report(run)
    for name, split in (report.get("splits") or {}).items():
        lines.append(f"- {escape_markdown(name)}: {words.count(split['num_records'])} records examined")
    kept = run.data.get("num_train")
    if isinstance(kept, int):
        dropped = run.data.get("num_dropped_leaks", 0)
        lines.append(
            f"- trained on {words.count(kept)} records; {words.count(dropped)} that stand in validation or test "
            "were left out"
        )
        by_words = run.data.get("num_dropped_short", 0) + run.data.get("num_dropped_long", 0)
        if by_words:
            lines.append(f"- {words.count(by_words)} training records were left out for their number of words")
    lines += [f"- {escape_markdown(describe_file(entry))}" for entry in run.data.get("extra") or []]
    files = run.data.get("files")
    if isinstance(files, dict):
        listed = [*files.items(), *((entry["data"], entry["sha256"]) for entry in run.data.get("extra") or [])]
        lines += [f"- {escape_markdown(name)}: SHA-256 {quote_code(digest)}" for name, digest in listed]
    return "\n".join(lines) or "The run holds no record of its data."


def _explain_length(run: LoadedRun) -> str:
    chosen = None if run.manifest is None else run.manifest.max_length
    if chosen is None:
        return ""
    share = words.percent(chosen["num_cut"] / chosen["num_records"])
    return f" The limit follows from the rule {quote_code(chosen['rule'])}; {share} of the training records are longer."


def _describe_limits(run: LoadedRun) -> str:
    model = run.config.get("model") or {}
    watched = [split for split in run.results if split not in ("test", "validation")]
    limit = escape_markdown(model.get("max_length", "a fixed number of"))
    lines = [
        "- For sorting texts like those it was trained on into the classes above; every text gets one of them, "
        "also one that belongs to none.",
        f"- {describe_rule(limit, str(model.get('long_texts', 'head')))}{_explain_length(run)}",
        "- Its probabilities are calibrated on the validation split; on other kinds of text they are likely too sure.",
        "- The licences of the base model and of the data hold for what was made from them.",
    ]
    test = run.results.get("test")
    for split in watched if test else []:
        moved = words.points(run.results[split]["accuracy"] - test["accuracy"]) if test else ""
        lines.insert(
            2, f"- On {escape_markdown(split)}, texts from elsewhere, accuracy moves by {moved} points against test."
        )
    return "\n".join(lines)


def _describe_loading(run: LoadedRun) -> str:
    repo, revision = _find_base(run)
    pin = f", revision={json.dumps(revision)}" if revision else ""
    native = (run.config.get("model") or {}).get("head") == "native"
    loader = "AutoModelForSequenceClassification" if native else "AutoModel"
    labels = f", num_labels={len(run.labels)}" if native and run.labels else ""
    peft = [
        "from peft import PeftModel",
        *([] if native else ["from safetensors.torch import load_file"]),
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f"base = {loader}.from_pretrained({json.dumps(repo)}{pin}{labels})",
        'model = PeftModel.from_pretrained(base, "adapter").eval()',
        'tokenizer = AutoTokenizer.from_pretrained("tokenizer")',
    ]
    if not native:
        pooling = (run.config.get("model") or {}).get("pooling", "mean")
        state = (
            "the mean of the last hidden states over the text's tokens"
            if pooling == "mean"
            else "the last hidden state of the first token"
        )
        peft += [
            'head = load_file("head.safetensors")',
            f"# logits = pooled @ head['head.weight'].T + head['head.bias'], where pooled is {state}",
        ]
    own = ["import submillion", "", 'model = submillion.load(".")', 'print(model.classify(["A text to classify"]))']
    return "\n".join(
        [
            "With submillion, from this folder:",
            "",
            "```python",
            *own,
            "```",
            "",
            "With PEFT alone:",
            "",
            "```python",
            *peft,
            "```",
        ]
    )
