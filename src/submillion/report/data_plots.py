"""Plots of the data that a run was fed: lengths of its texts, and the balance of its classes."""

from __future__ import annotations

from functools import partial

import numpy as np

from submillion.report.formatting import count, shorten
from submillion.report.plots import draw_balance, draw_lengths
from submillion.report.theme import Plot
from submillion.run.history import RunHistory


def list_data_plots(run: RunHistory) -> list[Plot]:
    """Return the length histogram and the class balance, where the doctor measured them."""
    plots = [_length_plot(run), _balance_plot(run)]
    return [plot for plot in plots if plot is not None]


def _length_plot(run: RunHistory) -> Plot | None:
    splits = run.findings["splits"] if run.findings else {}
    # The training split speaks for the others; where there is none, the first that was measured does.
    measured = [split.get("lengths") for split in [*(splits[n] for n in ("train",) if n in splits), *splits.values()]]
    lengths = next((known for known in measured if known and known.get("histogram")), None)
    histogram = lengths.get("histogram") if lengths else None
    if lengths is None or histogram is None:
        return None
    first = splits.get("train") or next(iter(splits.values()))
    unit, edges, counts = lengths.get("unit", "tokens"), histogram["edges"], histogram["counts"]
    known_limit = run.config.model.max_length if run.config else None
    limit = known_limit if unit == "tokens" and isinstance(known_limit, int) else None
    fate = "read in chunks" if run.config and run.config.model.long_texts == "chunks" else "cut"
    longest = edges[-1]
    is_passed = limit is not None and limit < longest
    if limit is not None and is_passed:
        caption = f"Training split. Texts beyond {count(limit)} tokens are {fate}."
    else:
        reads = f"; the model reads {count(limit)}" if limit is not None else ""
        caption = f"Training split. The longest text stays below {count(longest)} {unit}{reads}."
    draw = partial(
        draw_lengths,
        edges=np.array(edges, dtype=np.float64),
        counts=np.array(counts, dtype=np.float64),
        unit=unit,
        limit=limit if is_passed else None,
        num_cut=first.get("too_long", {}).get("num_records"),
    )
    alt = f"{count(sum(counts))} texts of {count(edges[0])} to {count(longest)} {unit}."
    return Plot("lengths", "Length of texts", caption, draw, alt=alt)


def _balance_plot(run: RunHistory) -> Plot | None:
    splits = run.findings["splits"] if run.findings else {}
    balance = {name: counts for name, split in splits.items() if (counts := split.get("class_counts"))}
    if not balance:
        return None
    said = "; ".join(
        f"{name}: " + ", ".join(f"{shorten(label, 40)} {count(n)}" for label, n in counts.items())
        for name, counts in balance.items()
    )
    draw = partial(draw_balance, balance=balance)
    return Plot("balance", "Class balance", "Share of every class in each split.", draw, alt=f"{said}.")
