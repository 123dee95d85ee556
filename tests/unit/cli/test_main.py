"""What the command does to its own process before anything is loaded."""

from __future__ import annotations

import os
from typing import Any

import pytest

from submillion import api
from submillion.cli import main
from submillion.errors import ConfigError


@pytest.fixture
def lone_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["submillion", "--version"])
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)


def test_waiting_threads_soon_sleep(lone_command: None) -> None:
    assert main() == 0
    assert os.environ["GOMP_SPINCOUNT"] == "3000"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")])
def test_how_threads_wait_is_left_as_it_is_set(
    lone_command: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    main()
    assert {key: os.environ[key] for key in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if key in os.environ} == {name: value}


def test_a_program_that_calls_a_command_keeps_its_settings(lone_command: None) -> None:
    main(["--version"])
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("command", ["train", "tune", "curve"])
def test_commands_that_train_take_the_same_flags_for_data(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def note(recipe: str, **values: Any) -> None:
        given.update(values)
        raise ConfigError("enough")

    monkeypatch.setattr(api, "resolve_config", note)
    flags = ["--text", "a,b", "--label", "c", "--id", "d", "--numbers", "ids-from-1"]
    assert main([command, "demo", "--data", "x.csv", *flags]) == 2
    assert "enough" in capsys.readouterr().err
    found = {name: given[name] for name in ("text", "label", "row_id", "numbers")}
    assert found == {"text": ("a", "b"), "label": "c", "row_id": "d", "numbers": "ids-from-1"}
