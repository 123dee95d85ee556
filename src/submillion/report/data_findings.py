"""The data doctor's findings in a report: sizes, duplicates, conflicts, leaks, balance, lengths and digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from submillion.data.legibility import describe_legibility
from submillion.data.synthetic import describe_file
from submillion.report import words
from submillion.report.html import Child, Html, element, pairs, render, table
from submillion.report.page import Section, paragraph, show_plots
from submillion.report.plots import draw_balance, draw_lengths
from submillion.report.theme import Plot
from submillion.run.history import LoadedRun, find_part

NUM_EXAMPLES = 3
KIND_WORDS = {"exact": "the same text", "near": "nearly the same text", "column": "one column the same (kept)"}


def find_report(run: LoadedRun) -> dict[str, Any]:
    """Return the data doctor's report of a run, or an empty mapping."""
    return find_part(run.data, "num_exact_duplicates", "splits")


def _pool_lengths(splits: Mapping[str, Any]) -> tuple[str, list[int], list[int]] | None:
    # The training split speaks for the others; where there is none, the first that was measured does.
    names = ["train", *splits] if "train" in splits else list(splits)
    for name in names:
        lengths = splits[name].get("lengths") or {}
        histogram = lengths.get("histogram")
        if histogram:
            return str(lengths.get("unit", "tokens")), histogram["edges"], histogram["counts"]
    return None


def _count_cut(splits: Mapping[str, Any]) -> int | None:
    first: Mapping[str, Any] = splits.get("train") or next(iter(splits.values()), {})
    number = (first.get("too_long") or {}).get("num_records")
    return number if isinstance(number, int) else None


def list_data_plots(run: LoadedRun) -> list[Plot]:
    """Return the length histogram and the class balance, where the doctor measured them."""
    splits = find_report(run).get("splits") or {}
    plots: list[Plot] = []
    pooled = _pool_lengths(splits)
    if pooled is not None:
        unit, edges, counts = pooled
        model = run.config.get("model") or {}
        limit = model.get("max_length") if unit == "tokens" else None
        fate = "read in chunks" if model.get("long_texts") == "chunks" else "cut"
        longest = edges[-1]
        caption = (
            f"Training split. Texts beyond {words.count(limit)} tokens are {fate}."
            if limit is not None and limit < longest
            else f"Training split. The longest text stays below {words.count(longest)} {unit}"
            + (f"; the model reads {words.count(limit)}." if limit is not None else ".")
        )
        draw = partial(
            draw_lengths,
            edges=np.array(edges, dtype=np.float64),
            counts=np.array(counts, dtype=np.float64),
            unit=unit,
            limit=limit if limit is not None and limit < longest else None,
            num_cut=_count_cut(splits),
        )
        alt = f"{words.count(sum(counts))} texts of {words.count(edges[0])} to {words.count(longest)} {unit}."
        plots.append(Plot("lengths", "Length of texts", caption, draw, alt=alt))
    balance = {name: split["class_counts"] for name, split in splits.items() if split.get("class_counts")}
    if balance:
        draw = partial(draw_balance, balance=balance)
        said = "; ".join(
            f"{name}: " + ", ".join(f"{words.shorten(label, 40)} {words.count(n)}" for label, n in split.items())
            for name, split in balance.items()
        )
        plots.append(Plot("balance", "Class balance", "Share of every class in each split.", draw, alt=f"{said}."))
    return plots


def _split_table(splits: Mapping[str, Any]) -> Html:
    def counted(split: Mapping[str, Any], key: str) -> str:
        return words.count((split.get(key) or {}).get("num_records", 0))

    def length(split: Mapping[str, Any]) -> Child:
        lengths = split.get("lengths") or {}
        if "mean" not in lengths:
            return "\N{EN DASH}"
        return f"{lengths['mean']:.0f}, at most {words.count(lengths['max'])} {lengths.get('unit', '')}"

    head = ["Split", "Records", "Mean length", "Exact duplicates", "Near duplicates", "Empty", "Too long", "Damaged"]
    rows = [
        [
            name,
            words.count(split["num_records"]),
            length(split),
            counted(split, "exact_duplicates"),
            counted(split, "near_duplicates"),
            counted(split, "empty"),
            counted(split, "too_long"),
            words.count(sum(f.get("num_records", 0) for f in (split.get("damage") or {}).values())),
        ]
        for name, split in splits.items()
    ]
    return table(head, rows, numeric=range(1, 8))


def _show_legibility(report: Mapping[str, Any]) -> list[Child]:
    """Return how much of the texts reached the model; nothing for runs of versions that did not count it."""
    figures = report.get("legibility")
    if not figures:
        return []
    shares = ("unknown_share", "spelled_share", "cut_records_share", "cut_tokens_share")
    rows = [
        [name, words.count(part["num_records"]), *(words.percent(part[share]) for share in shares)]
        for name, part in {"all texts": figures, **figures["classes"]}.items()
    ]
    head = ["Texts", "Records", "Unknown tokens", "Single letters", "Texts cut", "Tokens cut"]
    told = describe_legibility(figures, what="texts") or ["All tokens are known to the base, and all of them are read."]
    return [
        element("h3", "What reached the model"),
        *(paragraph(f"{line.rstrip('.')}.", class_="note") for line in told),
        table(head, rows, numeric=range(1, 6)),
    ]


def _leak_table(leaks: Sequence[Mapping[str, Any]]) -> Html:
    def places(leak: Mapping[str, Any]) -> Child:
        shown = [
            render(
                f"{example.get('left', '')} ~ {example.get('right', '')}",
                Html("<br>"),
                element("small", words.shorten(str(example.get("text", "")), 90)),
            )
            for example in (leak.get("examples") or [])[:NUM_EXAMPLES]
        ]
        return [element("div", example) for example in shown]

    rows = [
        [
            f"{leak['left']} in {leak['right']}",
            KIND_WORDS.get(leak["kind"], leak["kind"]),
            words.count(leak["num_records"]),
            places(leak),
        ]
        for leak in leaks
    ]
    return table(["Rows of", "Kind", "Rows", "First places"], rows, numeric=[2])


def _summarise(report: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    conflicts = report.get("num_label_conflicts", 0)
    sentences = [
        f"{words.count(report['num_records'])} records, examined before training: "
        f"{words.count(report['num_exact_duplicates'])} exact and {words.count(report['num_near_duplicates'])} "
        f"near duplicates inside their splits, {words.count(conflicts)} "
        f"text{' stands' if conflicts == 1 else 's stand'} under more than one label.",
    ]
    number = data.get("num_dropped_leaks")
    if isinstance(number, int):
        sentences.append(
            f"{words.count(number)} training row{' that stands' if number == 1 else 's that stand'} in validation "
            f"or test {'was' if number == 1 else 'were'} dropped."
        )
    left_out = {"fewer": data.get("num_dropped_short"), "more": data.get("num_dropped_long")}
    for which, count in left_out.items():
        if isinstance(count, int) and count:
            sentences.append(f"Left out of training: {words.count(count)} of {which} words than asked for.")
    if isinstance(data.get("num_train"), int):
        sentences.append(f"{words.count(data['num_train'])} were trained on.")
    sentences += [f"{describe_file(entry)}." for entry in data.get("extra") or []]
    if data.get("split"):
        sentences.append(f"Splits: {data['split']}.")
    return " ".join(sentences)


def data_section(run: LoadedRun, plots: Sequence[Plot]) -> Section:
    """Return the findings, and the digests of the files read."""
    report = find_report(run)
    parts: list[Child] = []
    if not report:
        parts.append(paragraph("The run holds no findings of the data doctor.", class_="note"))
    else:
        parts.append(paragraph(_summarise(report, run.data), class_="note"))
        parts.append(_split_table(report["splits"]))
        parts.append(show_plots(plots))
        parts += _show_legibility(report)
        parts.append(element("h3", "Rows that stand in two splits"))
        leaks = report.get("leaks") or []
        if leaks:
            parts.append(_leak_table(leaks))
        else:
            parts.append(paragraph("None, neither exactly nor nearly nor by a column.", class_="note"))
    files = run.data.get("files")
    if isinstance(files, Mapping) and files:
        listed = [*files.items(), *((entry["data"], entry["sha256"]) for entry in run.data.get("extra") or [])]
        digests = [(name, element("span", words.setting(digest), class_="digest")) for name, digest in listed]
        parts += [element("h3", "Files read, by SHA-256"), pairs(digests)]
    return Section("data", "Data", "What it was fed", render(parts))
