"""The notebook in examples/ runs from top to bottom, and its outputs are still true."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import submillion

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "agnews.ipynb"
# A few steps on a part of the rows; everything else is as its readers run it.
QUICK = 'SETTINGS = {"train.max_steps": 6, "data.max_records": 120, "train.learning_rate": 0.002, "threads": 1}'


def read_stream(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def has_tag(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def has_image(cell: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if has_tag(cell, "settings"))
    assert re.search(r"^SETTINGS = \{\}", settings.source, re.MULTILINE)
    settings.source = re.sub(r"^SETTINGS = \{\}.*$", QUICK, settings.source, flags=re.MULTILINE)
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.delenv("MPLBACKEND", raising=False)  # the kernel's own shows figures inline
        client.execute(env={**os.environ})
    return notebook


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_runs_from_top_to_bottom_and_shows_what_it_showed(stored: Any, executed: Any) -> None:
    for before, after in zip(stored.cells, executed.cells, strict=True):
        if has_tag(before, "stable"):
            assert read_stream(after) == read_stream(before)
        if has_tag(before, "plot"):
            assert has_image(after)


def test_it_classifies_better_than_chance_and_predicts_every_row(executed: Any) -> None:
    figures = read_stream(next(cell for cell in executed.cells if has_tag(cell, "figures")))
    accuracy = re.search(r"this run\s+accuracy (\d\.\d+)", figures)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.35
    lines = read_stream(next(cell for cell in executed.cells if has_tag(cell, "submission"))).splitlines()
    assert lines[0] == "ID,Label"
    assert [line.split(",")[0] for line in lines[1:5]] == ["0", "1", "2", "3"]
    assert {line.split(",")[1] for line in lines[1:5]} <= {"World", "Sports", "Business", "Sci/Tech"}
    assert lines[-1] == "40 predictions"


def test_it_needs_what_the_package_exports_and_no_more(stored: Any) -> None:
    source = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
    imported = {module for module, _ in re.findall(r"^(?:from|import) (submillion(\.\w+)*)", source, re.MULTILINE)}
    assert imported == {"submillion", "submillion.corpus", "submillion.report"}
    assert "csv" not in re.findall(r"^import (\w+)", source, re.MULTILINE)
    assert set(re.findall(r"\bsubmillion\.([a-z_]+)\(", source)) <= set(submillion.__all__)


def test_readers_see_results_without_running_it(stored: Any) -> None:
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(has_image(cell) for cell in code if has_tag(cell, "plot"))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    assert "/home/" not in text
    assert "/work/" not in text
    assert "site-packages" not in text
