from __future__ import annotations

import io
import sys

import pytest

from submillion.budget.plan import make_plan
from submillion.cli.progress_bars import BarProgress, LineProgress, format_duration, format_figures, open_progress
from submillion.config.run import AdapterConfig, ModelConfig
from submillion.model.sources import load_base_config


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = LineProgress(clock=lambda: now)
    progress.start("train", 100)
    for second in range(1, 31):
        now = float(second)
        progress.advance(second * 2, loss=0.5)
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "train: started, 100 to do",
        "train: 20 of 100 (20%), 40.0 s left, loss 0.5",
        "train: 40 of 100 (40%), 30.0 s left, loss 0.5",
        "train: 60 of 100 (60%), 20.0 s left, loss 0.5",
        "train: 60 done in 30.0 s, loss 0.5",
    ]


def test_a_new_stage_ends_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(clock=lambda: 0.0)
    progress.start("read")
    progress.start("check")
    progress.note("[bold]a note[/bold] \x07")
    progress.finish()
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "read: started",
        "read: done in 0.0 s",
        "check: started",
        "[bold]a note[/bold] \N{REPLACEMENT CHARACTER}",
        "check: done in 0.0 s",
    ]


def test_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_progress(), LineProgress)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = open_progress()
    assert isinstance(progress, BarProgress)
    progress.start("train", 10)
    progress.advance(4, loss=0.25)
    progress.note("half way [/]")
    progress.advance(10, loss=0.125)
    progress.finish()
    progress.start("predict")
    progress.advance(1234)
    progress.finish()
    shown = terminal.getvalue()
    assert "half way [/]" in shown
    assert "10/10" in shown
    assert "loss 0.125" in shown
    assert "1,234" in shown


def test_figures_and_durations_are_short() -> None:
    assert format_figures({"loss": 0.123456, "rows_per_s": 101.23}) == "loss 0.1235, rows/s 101.2"
    assert [format_duration(seconds) for seconds in (3.21, 65, 3725)] == ["3.2 s", "1 min 05 s", "1 h 02 min"]


def test_the_plan_comes_through(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(
        load_base_config("minilm-l6"),
        base="minilm-l6",
        num_labels=4,
        model=ModelConfig(),
        adapter=AdapterConfig(rank=2),
        budget=1_000_000,
    )
    progress = LineProgress(clock=lambda: 0.0)
    progress.start("encode")
    progress.on_plan(plan)
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "encode: started"
    assert any(f"{plan.trainable_params:,}" in line for line in lines)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    BarProgress().on_plan(plan)
    assert f"{plan.trainable_params:,}" in terminal.getvalue()
