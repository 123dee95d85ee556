from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from submillion.errors import RunError
from submillion.report import write_report
from submillion.report.curves import list_curves
from submillion.report.run_page import split_plots
from submillion.report.theme import render_png, render_svg
from submillion.run.folder import RunDir
from submillion.run.history import read_history
from submillion.storage.files import read_json, write_json
from tests.unit.report.run_folders import write_run

SPOILER = '<script>alert("x")</script></text><img src=http://e.test/a.png>&amp; $\\frac{1}{$ \x00\x1b[31m'
HOSTILE = ("<b>World</b>", "$\\frac$", "a\x00b\u202ec", "世界 & co", 'x" onload="alert(1)')
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Tags with their attributes, and the text; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its report, for tests that only look."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run")
    write_report([folder])
    return folder


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of data that would like to be markup."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", names=HOSTILE, spoiler=SPOILER)
    write_report([folder])
    return folder


def test_page_shows_every_part_with_the_figures_of_the_files(run: Path) -> None:
    page = read_page(run / "report.html")
    test, baseline = read_json(run / "evaluation/test.json"), read_json(run / "evaluation/test.baseline.json")
    for value in (test["accuracy"], *test["accuracy_interval"], test["macro_f1"], baseline["accuracy"]):
        assert f"{100 * value:.2f}" in page.text
    assert f"{read_json(run / 'plan.json')['trainable_params']:,}" in page.text
    assert "exact McNemar p " in page.text
    assert "This run looked at the test split once." in page.text
    anchors = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert anchors == ["results", "training", "errors", "trust", "parameters", "data", "repeat"]
    assert "rows.csv:" in page.text


def test_page_needs_nothing_but_itself_and_ids_are_unique(hostile_run: Path) -> None:
    page = read_page(hostile_run / "report.html")
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"} == set()
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("href", "xlink:href", "src", "srcset"):
                assert (value or "").startswith("#")
            assert not name.startswith("on")
    text = (hostile_run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]{1,2})", text)) == {"#" + p.name[0] for p in (hostile_run / "plots").iterdir()}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    used = {value[1:] for _, attributes in page.tags if (value := attributes.get("xlink:href") or "")}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert len(ids) == len(set(ids))
    assert used <= set(ids)


def test_hostile_text_and_class_names_are_text(hostile_run: Path) -> None:
    page = read_page(hostile_run / "report.html")
    assert '<script>alert("x")</script>' in page.text  # as text that a reader sees
    assert "<b>World</b>" in page.text
    assert "$\\frac$" in page.text
    assert "世界 & co" in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    assert not set("\x00\x1b\u202e") & set(page.text)
    assert (hostile_run / "plots/confusion.png").exists()


def test_colours_follow_the_page(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 18
    for drawing in drawings:
        assert "var(--muted)" in drawing
        assert "var(--series-" in drawing
        assert set(re.findall(r"#[0-9a-f]{6}\b", drawing)) <= {"#000000"}  # no colour that would stay in dark mode


def test_plots_are_pictures_of_the_same_names(run: Path) -> None:
    plots = list((run / "plots").iterdir())
    assert {plot.stem for plot in plots} == {
        *("accuracy-by-set", "loss", "training-loss", "accuracy", "accuracy-by-epoch", "training-accuracy"),
        *("precision-recall-f1", "learning-rate", "gradient-norm", "speed", "confusion", "confusion-counts"),
        *("reliability", "class-reliability", "coverage", "budget", "lengths", "balance"),
    }
    for plot in plots:
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert plot.stat().st_size > 4000


def test_the_same_run_gives_the_same_drawings(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    for plot in list_curves(read_history(run))[:2]:
        assert render_svg(plot) in text
        assert render_png(plot) == (run / f"plots/{plot.name}.png").read_bytes()


def test_long_logs_are_thinned(tmp_path: Path) -> None:
    short, long = (
        render_svg(list_curves(read_history(write_run(tmp_path / str(steps), num_steps=steps, num_records=60)))[0])
        for steps in (480, 6000)
    )
    assert len(long) < 1.15 * len(short)


def test_run_without_test_split_says_so(tmp_path: Path) -> None:
    page = read_page(write_report([write_run(tmp_path / "run", num_steps=0, splits=("validation",))]))
    assert "There is no test split in this run" in page.text
    assert "No baseline was trained in this run" in page.text


def test_run_with_nothing_but_a_configuration_still_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", splits=())
    for name in ("plan.json", "data.json", "manifest.json", "log.jsonl"):
        (run / name).unlink()
    page = read_page(write_report([run]))
    assert "Nothing has been evaluated yet: the log holds 0 training steps." in page.text
    assert "The log holds no training steps." in page.text
    assert "The run holds no findings of the data doctor." in page.text
    assert not (run / "plots").exists()


def test_absent_files_leave_out_their_parts_alone(run: Path, tmp_path: Path) -> None:
    parts = ("Where the parameters are", "by SHA-256", "Most frequent errors", "labelled World")
    text = read_page(run / "report.html").text
    assert [part in text for part in parts] == [True] * 4
    bare = write_run(tmp_path / "run", num_steps=0)
    for name in ("plan.json", "data.json", "evaluation/test.predictions.parquet"):
        (bare / name).unlink()
    text = read_page(write_report([bare])).text
    assert [part in text for part in parts] == [False, False, True, False]
    assert "The predictions of this split were not kept" in text


def test_unread_texts_are_the_likely_reason_where_the_baseline_wins(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    report = RunDir(run)
    baseline, data = read_json(report.evaluation("test.baseline")), read_json(report.data)
    assert "likely reason" not in Page(write_report([run]).read_text(encoding="utf-8")).text
    baseline["comparison"] |= {"difference": -0.3, "interval": [-0.4, -0.2], "mcnemar_p": 1e-6}
    data["check"]["legibility"]["cut_tokens_share"] = 0.87
    write_json(report.evaluation("test.baseline"), baseline)
    assert "likely reason" not in Page(write_report([run]).read_text(encoding="utf-8")).text
    write_json(report.data, data)
    text = Page(write_report([run]).read_text(encoding="utf-8")).text
    assert (
        "This is the likely reason: the model could not read its whole texts: 87.0% of all tokens are cut off" in text
    )
    assert "What reached the model" in text


def test_no_errors_and_no_difference(tmp_path: Path) -> None:
    page = read_page(write_report([write_run(tmp_path / "run", skill=40.0, num_steps=0, splits=("test",))]))
    assert "There are none: every record is right." in page.text
    assert "chance alone can explain that" in page.text


@pytest.mark.parametrize("num_labels", [2, 30, 60])
def test_any_number_of_classes_has_a_confusion_matrix(tmp_path: Path, num_labels: int) -> None:
    names = tuple(f"class number {number}" for number in range(num_labels))
    folder = write_run(tmp_path / "run", names=names, splits=("test",))
    drawing = render_svg(split_plots(read_history(folder), None)["confusion"])
    assert (">class number 1<" in drawing) == (num_labels <= 40)


def test_out_is_a_file_or_a_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_steps=0, splits=())
    assert write_report([run], tmp_path / "page.html") == tmp_path / "page.html"
    assert write_report([run], tmp_path / "folder") == tmp_path / "folder" / "report.html"


def test_damaged_runs_end_in_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        write_report([tmp_path])
    with pytest.raises(RunError, match="no run folder given"):
        write_report([])
    run = write_run(tmp_path / "run", num_records=60)
    with pytest.raises(RunError, match="given twice"):
        write_report([run, run])
    (run / "evaluation/test.predictions.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RunError, match="is damaged"):
        write_report([run])
    (run / "evaluation/test.json").write_text("{")
    with pytest.raises(RunError, match=r"test\.json: is damaged"):
        write_report([run])
    assert not (run / "report.html").exists()


def test_most_confident_error_comes_first(hostile_run: Path) -> None:
    text = read_page(hostile_run / "report.html").text
    errors = text[text.index("Most confident errors") :]
    assert errors[errors.index("rows.csv:") :].startswith("rows.csv:1<script>")
    assert "at 100.0" in errors[: errors.index("rows.csv:")]
