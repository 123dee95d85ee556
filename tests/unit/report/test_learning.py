"""What is said first of a run that learnt nothing, and of one that the baseline beats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from submillion.report.learning import judge_run
from submillion.report.load import LoadedRun
from submillion.report.page import build_page, paragraph
from submillion.report.sections import show_heading


def make_run(confusion: list[list[int]], *, num_steps: int = 500, **values: Any) -> LoadedRun:
    counts = np.array(confusion)
    result = {
        "confusion": confusion,
        "num_records": int(counts.sum()),
        "accuracy": float(np.trace(counts) / counts.sum()),
    }
    fields: dict[str, Any] = {
        "path": Path("run"),
        "title": "run",
        "config": {"train": {"learning_rate": 2e-5}},
        "plan": {},
        "data": {"num_train": 4000},
        "manifest": {},
        "steps": {"loss": np.full(num_steps, 1.1)},
        "learning_rates": {},
        "evaluations": {},
        "notes": (),
        "results": {"test": result},
        "baselines": {},
        "labels": ("a", "b", "c"),
    }
    return LoadedRun(**{**fields, **values})


NOTHING = [[20, 15, 15], [18, 16, 16], [17, 17, 16]]


def test_a_run_at_chance_is_named_with_its_figures() -> None:
    verdict = judge_run(make_run(NOTHING))
    assert (verdict["learnt"], verdict["split"]) == (False, "test")
    assert verdict["largest_class_share"] == pytest.approx(1 / 3)
    assert "has not shown that it learnt anything" in verdict["sentences"][0]
    assert "34.67" in verdict["sentences"][0]
    assert "learning rate (2e-05)" in verdict["sentences"][0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_steps": 12}, "number of optimizer steps, 12"),
        ({"data": {"num_train": 30}}, "number of training rows, 30"),
        ({"train_sample": {"accuracy": 0.99}}, "It knows its training rows"),
        (
            {"data": {"check": {"splits": {"train": {"num_records": 10, "legibility": {"unknown_share": 0.7}}}}}},
            "cannot read these texts",
        ),
        (
            {"data": {"check": {"splits": {"train": {"num_records": 10, "too_long": {"num_records": 9}}}}}},
            "the length of the texts",
        ),
        ({"steps": {"loss": np.linspace(1, 2, 300)}}, "likely too high"),
    ],
)
def test_the_likeliest_reason_is_told(values: dict[str, Any], reason: str) -> None:
    assert reason in judge_run(make_run(NOTHING, **values))["sentences"][0]


def test_a_run_that_learnt_says_nothing_even_where_one_class_is_most() -> None:
    assert judge_run(make_run([[40, 5, 5], [4, 42, 4], [5, 5, 40]]))["sentences"] == []
    assert judge_run(make_run([[900, 5, 5], [10, 30, 5], [5, 5, 35]]))["learnt"]
    # Right on the large class alone.
    assert not judge_run(make_run([[900, 5, 5], [40, 5, 0], [45, 0, 0]]))["learnt"]


def test_a_baseline_that_wins_is_named() -> None:
    comparison = {"difference": -0.44, "mcnemar_p": 0.001}
    verdict = judge_run(make_run([[40, 5, 5], [4, 42, 4], [5, 5, 40]], baselines={"test": {"comparison": comparison}}))
    assert verdict["baseline_wins"] is True
    assert "baseline is better than this model by 44.00 points" in verdict["sentences"][0]
    comparison["mcnemar_p"] = 0.3
    assert (
        judge_run(make_run([[40, 5, 5], [4, 42, 4], [5, 5, 40]], baselines={"test": {"comparison": comparison}}))[
            "sentences"
        ]
        == []
    )


def test_the_report_says_it_before_all_figures() -> None:
    said = build_page("a page", show_heading(make_run(NOTHING)), paragraph("the figures"), [])
    assert 'class="warning"' in said
    assert said.index("has not shown that it learnt anything") < said.index("the figures")
    assert 'class="warning"' not in show_heading(make_run([[48, 1, 1], [1, 48, 1], [1, 1, 48]]))
