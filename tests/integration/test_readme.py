"""What README.md and the pages in docs/ say can be followed: links, commands, output, counts, Python."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import submillion
from submillion.cli import main
from submillion.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def iter_blocks(text: str, language: str) -> Iterator[str]:
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1]


def list_commands() -> list[str]:
    lines = [
        line for page in PAGES for block in iter_blocks(page.read_text("utf-8"), "sh") for line in block.split("\n")
    ]
    lines += [line[2:] for block in iter_blocks(README, "console") for line in block.split("\n") if line[:2] == "$ "]
    inline = [code for page in PAGES for code in re.findall(r"`(submillion [a-z][^`]*)`", page.read_text("utf-8"))]
    return list(dict.fromkeys(line for line in [*lines, *inline] if line.startswith("submillion ")))


def make_anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in {make_anchor(heading) for heading in headings}, f"{page.name} links to {target}"


@pytest.mark.parametrize("line", list_commands())
def test_commands_parse(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    name = "submillion"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    if words:  # a command that is only named, as in "`submillion train` takes a recipe", has nothing to parse
        command.make_context(name, words)


def test_the_ten_names_are_where_the_page_says() -> None:
    named = re.findall(r"\[`([\w.]+)`\]\((src/[\w/]+\.py)\)", README)
    assert len(named) == 10
    for name, path in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found: list[ast.stmt] = tree.body
        for part in name.split("."):
            inner = [n for n in found if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
            assert inner, f"{path} has no {name}"
            found = inner[0].body


def test_the_rooms_of_the_file_tree_exist() -> None:
    tree = next(block for block in iter_blocks(README, "text") if block.startswith("src/submillion/"))
    rooms = re.findall(r"(?:^  | )([a-z_]+(?:/|\.py))(?= )", tree, re.MULTILINE)
    assert len(rooms) > 15
    assert [room for room in rooms if not (ROOT / "src" / "submillion" / room).exists()] == []


def test_the_page_is_short_and_shows_python_early() -> None:
    assert len(README.split()) <= 1000
    assert README[: README.index("```python")].count("\n") < 70


def test_shown_output_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for block in iter_blocks(README, "console") if block.startswith("$ submillion ")]
    assert blocks
    for block in blocks:
        command, _, shown = block.partition("\n")
        assert main(shlex.split(command)[2:]) == 0
        printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
        beginning, dots, _ = shown.partition("...\n")
        assert printed.startswith(beginning) if dots else printed == shown


def test_counts_of_published_recipes_are_exact() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(agnews-[\w-]+)` \|[^|]*" + r"\| ([\d,]+) " * 4 + r"\|$", page, re.MULTILINE)
    assert len(rows) == 5
    for name, *counts in rows:
        plan = submillion.plan(name)
        expected = [plan.trainable_params, plan.adapter_params, plan.bias_params, plan.total_params]
        assert [int(count.replace(",", "")) for count in counts] == expected, name
        assert plan.head_params == 593_668


def test_python_uses_what_the_package_exports() -> None:
    (block,) = iter_blocks(README, "python")
    tree = ast.parse(block)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "submillion"
    }
    assert used == {"plan", "train", "load"}
    assert used <= set(submillion.__all__)
    assert f"# {submillion.plan('agnews-qkv-r4-bias').trainable_params}" in block


def list_steps() -> list[tuple[str, str]]:
    """Return the blocks of the README that can be run anywhere, in their order, by language."""
    blocks = re.finditer(r"^```(sh|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(block[1], block[2]) for block in blocks if not block[2].startswith(("git clone", "pip install"))]


def test_every_block_runs_in_its_order(tmp_path: Path) -> None:
    """As a reader does it: in the root of a clone, one block after the other, in fresh processes."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    # The readers of this page have `submillion` on their path.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "SUBMILLION_CACHE": str(tmp_path / "cache")}
    steps = list_steps()
    assert [language for language, _ in steps].count("python") == 1
    assert sum(block.count("submillion ") for language, block in steps if language == "sh") >= 9
    for language, block in steps:
        command = [sys.executable, "-c", block] if language == "python" else ["bash", "-euc", block]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    rows = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "ID,Label"
    assert {row.partition(",")[2] for row in rows[1:]} <= {"account", "billing", "delivery", "product"}
    assert len(rows) == len((tmp_path / "examples" / "inbox.csv").read_text(encoding="utf-8").splitlines())
    assert (tmp_path / "runs" / "tickets" / "export").is_dir()
