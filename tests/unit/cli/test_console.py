from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.table import Table
from rich.text import Text

from submillion.cli import console
from submillion.cli.progress_bars import BarProgress, LineProgress
from submillion.errors import DataError


def test_results_go_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_result("result")
    console.print_note("note")
    console.print_submillion_error(DataError("is empty", where="a.csv:3", hint="Add rows."))
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err == "note\nerror: a.csv:3: is empty\nAdd rows.\n"


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smile:", "[link=http://a]b[/link]", "50 % \\[x]"])
def test_text_is_never_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    console.print_result(text)
    console.print_error(text)
    captured = capsys.readouterr()
    assert captured.out == f"{text}\n"
    assert captured.err == f"error: {text}\n"


EVIL = "a\x1b[2Jb\x9bc\u202ed\re\u2066f\x07"


def _make_table() -> Table:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    return table


@pytest.mark.parametrize(
    "say",
    [
        lambda: console.print_result(EVIL),
        lambda: console.print_result(Text(EVIL)),
        lambda: console.print_result(_make_table()),
        lambda: console.print_note(EVIL),
        lambda: console.print_note(_make_table()),
        lambda: console.print_error(EVIL, hint=EVIL),
        lambda: console.print_submillion_error(DataError(EVIL, where=EVIL, hint=EVIL)),
        lambda: console.open_console(stderr=True).print(EVIL),
        lambda: LineProgress().note(EVIL),
        lambda: LineProgress().start(EVIL, 3),
        lambda: BarProgress().note(EVIL),
    ],
)
def test_control_characters_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], say: Callable[[], object]
) -> None:
    say()
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert "[2J" in shown
    assert not set(shown) & set("\x1b\x9b\u202e\r\u2066\x07")


def test_bars_steer_the_terminal_and_texts_in_them_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    bars = BarProgress()
    bars.start("st\x1b[2Jage", 3)
    bars.note("no\x1b[2Jte")
    bars.advance(2)
    bars.finish()
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_raw_output_is_raw_for_programs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    console.print_raw(EVIL)
    assert ("\x1b" in capsys.readouterr().out) == (not is_terminal)


def test_long_lines_are_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_result("/a/long/path" * 50)
    assert capsys.readouterr().out == "/a/long/path" * 50 + "\n"


def test_json_is_one_ascii_value(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"name": "東京 \x1b"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "東京 \x1b"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json([float("nan")])
