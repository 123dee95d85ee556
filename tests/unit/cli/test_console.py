from __future__ import annotations

import json

import pytest

from submillion.cli import console
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


def test_control_characters_do_not_reach_the_terminal() -> None:
    mark = "\N{REPLACEMENT CHARACTER}"
    assert console.clean_controls("a\x1b[2Jb\x9bc\u202ed\re\tf\ng") == f"a{mark}[2Jb{mark}c{mark}d{mark}e\tf\ng"
    assert console.clean_controls("Zürich, 東京 🙂") == "Zürich, 東京 🙂"


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
