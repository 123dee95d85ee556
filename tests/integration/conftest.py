"""Commands in this process and in their own, and runs that they have trained on a tiny base model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from submillion.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return `cli(*words) -> Outcome`: a command in this process, through the same `main` as the program's."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def submillion_process() -> Callable[..., subprocess.Popen[str]]:
    """Return `start(*words, **popen) -> Popen` for commands that need their own process."""

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "submillion", *(str(word) for word in words)]
        settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=dict(os.environ), **(settings | options))

    return start


@dataclass(frozen=True)
class Trained:
    folder: Path
    data: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def train_words(tiny_bert: Path) -> Callable[..., list[str]]:
    """Return `words(data, out, *more) -> list`: a training command of a second or two on the tiny base."""

    def make(data: Path, out: Path, *more: object) -> list[str]:
        settings = ("model.max_length=48", "train.epochs=2", "adapter.rank=2", "threads=1", "train.learning_rate=5e-3")
        words = ["train", "demo", "--data", data, "--base", tiny_bert, "--out", out]
        words += [word for setting in settings for word in ("--set", setting)]
        return [str(word) for word in (*words, *more)]

    return make


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    news_rows: Callable[..., Path],
    train_words: Callable[..., list[str]],
    submillion_process: Callable[..., subprocess.Popen[str]],
) -> Trained:
    """Return a run that the program itself has trained on 160 short news items with a test file; read-only."""
    root = tmp_path_factory.mktemp("trained")
    data = root / "data"
    news_rows(data / "train.csv", 160)
    news_rows(data / "test.csv", 40, start=1000)
    process = submillion_process(*train_words(data, root / "run", "--json"))
    out, err = process.communicate(timeout=540)
    assert process.returncode == 0, err
    return Trained(root / "run", data, Outcome(0, out, err))
