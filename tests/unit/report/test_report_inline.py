from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure, SubFigure
from PIL import Image

import submillion
from submillion.errors import RunError
from tests.unit.report.run_folders import write_run


@dataclass(frozen=True)
class Summary:
    """An object with the folder of a run, like the result of training."""

    run: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", num_records=80, num_steps=30)


def list_titles(figure: Figure) -> list[str]:
    parts: Sequence[Figure | SubFigure] = figure.subfigs or [figure]
    return [part.get_suptitle() for part in parts if part.axes]


def test_curves_of_one_run_and_of_several_are_one_figure(folder: Path, tmp_path: Path) -> None:
    figure = submillion.report.plot_curves(folder)
    assert list_titles(figure)[:3] == ["Training and validation loss", "Training loss", "Accuracy"]
    assert len(figure.axes) == 9
    other = write_run(tmp_path / "other", num_records=60, num_steps=20, seed=1)
    both = submillion.report.plot_curves(str(folder), Summary(other), names=["validation-accuracy", "loss"])
    assert list_titles(both) == ["Validation accuracy", "Training loss"]
    assert len(both.axes[0].lines) == 4  # two runs, each with its kept checkpoint


def test_figures_show_themselves_in_light_colours(folder: Path) -> None:
    figure = submillion.report.plot_curves(folder, names=["loss"])
    picture = Image.open(io.BytesIO(figure._repr_png_()))  # type: ignore[attr-defined]  # of our figures
    pixels = np.asarray(picture.convert("RGBA"))
    assert pixels[0, 0].tolist() == [255, 255, 255, 255]
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50


def test_every_other_plot_is_there(folder: Path) -> None:
    report, plan = submillion.report, submillion.plan("agnews-minilm")
    shown = {
        "Accuracy by set": report.plot_accuracies(folder),
        "Confusion matrix, by true class": report.plot_confusion(folder),
        "Confusion matrix, counts": report.plot_confusion(folder, split="bbc", counts=True),
        "Reliability": report.plot_reliability(folder, split="validation"),
        "Reliability of each class": report.plot_reliability(folder, by_class=True),
        "Length of texts": report.plot_lengths(folder),
        "Where the budget goes": report.plot_budget(plan),
    }
    assert {title: list_titles(figure) for title, figure in shown.items()} == {title: [title] for title in shown}
    assert list_titles(report.plot_budget(Summary(folder))) == ["Where the budget goes"]


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    report = submillion.report
    with pytest.raises(RunError, match="no curve 'lost'") as caught:
        report.plot_curves(folder, names=["lost"])
    assert "loss, training-loss, accuracy" in caught.value.hint
    with pytest.raises(RunError, match="no evaluated split 'train'"):
        report.plot_confusion(folder, split="train")
    with pytest.raises(RunError, match="no run given"):
        report.plot_curves()
    bare = write_run(tmp_path / "bare", num_steps=0, splits=(), num_records=60)
    for name in ("plan.json", "data.json"):
        (bare / name).unlink()
    with pytest.raises(RunError, match="has no evaluated split"):
        report.plot_reliability(bare)
    for draw in (report.plot_curves, report.plot_accuracies, report.plot_lengths, report.plot_budget):
        with pytest.raises(RunError):
            draw(bare)
