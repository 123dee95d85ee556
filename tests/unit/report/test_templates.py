"""What every template has: all that is printed is escaped, and nothing is missing in silence."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from jinja2 import Environment

from submillion.errors import RunError
from submillion.report import templates
from submillion.report.formatting import show_interval, show_p, show_percent, show_points
from submillion.run.shapes import damage_is_run_error

HOSTILE = "<i>|[x](http://e.test)`\x1b"


def test_a_value_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError, match="figures"):
        templates.render_page("curve.html")
    with pytest.raises(RunError, match="contradict each other"), damage_is_run_error(Path("run")):
        templates.render_page("curve.html")


@pytest.mark.parametrize(
    ("open_kind", "shown", "p"),
    [
        (templates._open_pages, "&lt;i&gt;|[x](http://e.test)`\x1b", "p &lt; 0.001"),
        (templates._open_markdown, "&lt;i&gt;\\|\\[x\\]\\(http\\://e.test\\)\\`\N{REPLACEMENT CHARACTER}", "p < 0.001"),
    ],
)
def test_text_is_escaped_for_its_kind_of_file(open_kind: Callable[[], Environment], shown: str, p: str) -> None:
    source = "{% macro twice(text) %}{{ text }} {{ text }}{% endmacro %}{{ twice(text) }} {{ p|p_value }}"
    assert open_kind().from_string(source).render(text=HOSTILE, p=0.0001) == f"{shown} {shown} {p}"


def test_every_template_can_be_read() -> None:
    folder = resources.files("submillion.report").joinpath("templates")
    names = [file.name for file in folder.iterdir()]
    assert len(names) > 8
    for name in names:
        opened = templates._open_markdown() if name.endswith(".md") else templates._open_pages()
        opened.get_template(name)


def test_numbers_for_a_terminal_have_signs_that_every_font_has() -> None:
    assert show_percent(0.93554) == "93.55 %"
    assert show_interval((0.93, 0.9412)) == "93.00 .. 94.12 %"
    assert show_interval(None) == "-"
    assert show_points(-0.0123, (-0.03, 0.005)) == "-1.23 (-3.00 .. +0.50)"
    assert (show_p(0.00001), show_p(0.0312)) == ("< 0.0001", "0.031")
