"""Run folders from strangers: every file of a finished run, damaged in every way, for every command that reads it.

Each case ends in a right answer or in a typed error, in no case in a wait, a traceback or a change outside the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from submillion.cli import main
from submillion.report import write_card, write_report

TYPED = {2, 3, 4, 5, 6}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, news_rows: Callable[..., Path], train_words: Callable[..., list[str]]
) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    data = news_rows(folder / "news.csv", 60)
    # Without the proof and the report a run that is resumed takes a second.
    settings = ("--set", "final.proof=false", "--set", "final.report=false")
    assert main(train_words(data, folder / "run", *settings)) == 0
    write_report([folder / "run"])
    write_card(folder / "run")
    return folder / "run"


@pytest.fixture(autouse=True)
def _draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of plots that all data has been gathered for: it takes most of the time of a report."""
    monkeypatch.setattr("submillion.report.theme.render_svg", lambda plot: "")
    monkeypatch.setattr("submillion.report.write.render_png", lambda plot: b"")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "copy" / "run"
    shutil.copytree(finished, copy)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    yield copy
    assert sorted(os.listdir(tmp_path / "precious")) == ["file"], "something was written outside of the run"
    assert (tmp_path / "precious" / "file").read_text() == "precious", "a file outside of the run was changed"


def remove(path: Path, _: Path) -> None:
    path.unlink()


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path, _: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_object(path: Path, _: Path) -> None:
    path.write_text("{}")


def write_list(path: Path, _: Path) -> None:
    path.write_text("[]")


def write_zeros(path: Path, _: Path) -> None:
    path.write_bytes(b"\x00" * max(64, path.stat().st_size))


def nest(path: Path, _: Path) -> None:
    path.write_text('{"a":' * 20_000)


def write_latin(path: Path, _: Path) -> None:
    path.write_bytes(b'{"a": "\xff\xfe"}\n')


def exaggerate(path: Path, _: Path) -> None:
    content = path.read_bytes()
    for digit in b"123456789":
        content = content.replace(bytes([digit]), b"9" * 30)
    path.write_bytes(content)


def link(path: Path, precious: Path) -> None:
    path.unlink()
    path.symlink_to(precious / "file")


def put_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def put_pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    *(remove, empty, truncate, write_object, write_list, write_zeros, nest, write_latin, exaggerate),
    *(link, put_folder, put_pipe),
]
FILES = [
    *("config.yaml", "plan.json", "data.json", "manifest.json", "log.jsonl", ".lock", "head.safetensors"),
    *("report.html", "README.md", "checkpoints/last", "checkpoints/best", "checkpoints/LAST/state.json"),
    *("checkpoints/LAST/parameters.safetensors", "checkpoints/LAST/optimizer.safetensors"),
    *("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "tokenizer/tokenizer.json"),
    *("evaluation/validation.json", "evaluation/test.json", "evaluation/test.baseline.json"),
    *("evaluation/test.predictions.parquet", "evaluation/validation.predictions.parquet"),
]


def copy_anything(source: str, target: str) -> None:
    if stat.S_ISFIFO(os.stat(source).st_mode):
        os.mkfifo(target)
    else:
        shutil.copy(source, target)


def find_file(run: Path, name: str) -> Path:
    return run / name.replace("LAST", (run / "checkpoints" / "last").read_text().strip())


def carry_out(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    capsys.readouterr()
    code = main(words)
    said = capsys.readouterr().err
    assert code in {0, *TYPED}, said
    assert "Traceback" not in said
    return code


# Files that one function reads share most of what can go wrong: every damage for one of each kind, some for the others.
KINDS = {"config.yaml", "manifest.json", "log.jsonl", "checkpoints/last", "checkpoints/LAST/state.json"}
KINDS |= {"checkpoints/LAST/parameters.safetensors", "tokenizer/tokenizer.json", "adapter/adapter_config.json"}
KINDS |= {"evaluation/test.json", "evaluation/test.predictions.parquet"}
ALWAYS = [remove, truncate, write_object, link, put_pipe]
CASES = [(name, damage) for name in FILES for damage in (DAMAGES if name in KINDS else ALWAYS)]


@pytest.mark.parametrize(("name", "damage"), CASES, ids=[f"{name}-{damage.__name__}" for name, damage in CASES])
def test_a_damaged_file_is_refused_or_harmless(
    run: Path, tmp_path: Path, name: str, damage: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads((run / "evaluation" / "test.json").read_text())
    damage(find_file(run, name), tmp_path / "precious")
    resumed = shutil.copytree(run, run.with_name("resumed"), symlinks=True, copy_function=copy_anything)
    codes = {
        "report": carry_out(["report", str(run)], capsys),
        "resume": carry_out(["train", "--resume", str(resumed)], capsys),
    }
    if damage in {link, put_pipe}:
        assert set(codes.values()) == {6}, codes
    if codes["resume"] == 0:
        again = json.loads((resumed / "evaluation" / "test.json").read_text())
        assert again["accuracy"] == figures["accuracy"]
        assert again["loss"] == pytest.approx(figures["loss"], abs=1e-5)


LINKED = ["plots", "evaluation", "tokenizer", "adapter", "checkpoints", "export"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, ["report"]) for name in LINKED),
        *(("adapter", words) for words in (["train", "--resume"], ["export"], ["classify"])),
    ],
)
def test_folders_that_are_links_are_refused(
    run: Path, tmp_path: Path, name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(tmp_path / "precious")
    assert carry_out([*words, str(run), *(["a text"] if words == ["classify"] else [])], capsys) == 6


def test_a_run_that_is_reached_through_a_link_is_fine(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(run)
    assert carry_out(["report", str(tmp_path / "link")], capsys) == 0
    assert carry_out(["classify", str(tmp_path / "link"), "a text"], capsys) == 0


@pytest.mark.parametrize("value", [0, -1.0, "1", True, None, [], 1e300, "NaN", "Infinity"])
def test_a_temperature_that_cannot_be_is_named(run: Path, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "manifest.json").read_text()
    shown = str(value) if value in ("NaN", "Infinity") else json.dumps(value)
    before = json.dumps(json.loads(text)["temperature"])
    (run / "manifest.json").write_text(text.replace(f'"temperature": {before}', f'"temperature": {shown}'))
    code = main(["classify", str(run), "a text"])
    said = capsys.readouterr().err
    assert code == 6
    assert "manifest.json" in said
