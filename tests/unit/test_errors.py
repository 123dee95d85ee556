"""Errors as data: what one process has raised is what another one raises."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from submillion import errors
from submillion.errors import KINDS, ConfigError, DataError, RunError, SubmillionError, from_json
from submillion.launch import explain_end, find_error_file, write_error


def test_all_kinds_can_cross() -> None:
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SubmillionError)}
    assert set(KINDS) == defined - {"SubmillionError"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_comes_back_as_it_was(kind: type[SubmillionError]) -> None:
    before = kind("it broke: error: ä\nx", where="data.csv:3", hint="Mend it.\nOr not.")
    after = from_json(json.loads(json.dumps(before.to_json())))
    assert type(after) is kind
    assert (after.message, after.where, after.hint) == (before.message, before.where, before.hint)
    assert after.exit_code == kind.exit_code


def test_a_kind_that_nobody_knows_ends_a_run() -> None:
    error = from_json(SubmillionError("unexpected KeyError: 3", hint="This is a bug.").to_json())
    assert type(error) is RunError
    assert error.message == "unexpected KeyError: 3"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "run.v1.log"
    path.write_text("error: this is what it printed\nand a hint\n")
    return path


def test_what_a_process_prints_is_shown_and_not_parsed(log: Path) -> None:
    error = explain_end(3, log, "runs/a")
    assert type(error) is RunError
    assert (error.message, error.where) == ("the run ended with status 3", "runs/a")
    assert "error: this is what it printed" in error.hint


def test_what_a_process_leaves_is_raised_with_its_folder(log: Path) -> None:
    write_error(find_error_file(log), DataError("no rows", where="a.csv", hint="Give some."))
    error = explain_end(3, log, "runs/a")
    assert type(error) is DataError
    assert (error.message, error.where) == ("no rows", "a.csv")
    assert error.hint == "Give some.\nThis ended the run in runs/a."
    assert find_error_file(log).name == "run.v1.error.json"


@pytest.mark.parametrize(("code", "how"), [(-9, "was killed by SIGKILL"), (130, "was interrupted from outside")])
def test_an_end_without_an_error_is_told(code: int, how: str, log: Path) -> None:
    assert explain_end(code, log, "runs/a").message == f"the run {how}"


def test_errors_of_commands_are_told_once_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    from submillion.cli import main

    told: list[SubmillionError] = []
    assert main(["plan", "minilm", "--set", "adapter.rank=-3"], on_error=told.append) == 2
    (error,) = told
    assert type(error) is ConfigError
    assert error.message in capsys.readouterr().err
    told.clear()
    assert main(["plan", "--no-such-flag"], on_error=told.append) == 2
    assert "no-such-flag" in told[0].message
