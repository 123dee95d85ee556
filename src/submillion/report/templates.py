"""Templates of pages (HTML) and of Markdown files: what goes into them is text, and nothing in it becomes markup.

The prose and the markup lie in the folder ``templates``. A template cannot print a value without escaping it: pages
escape it for HTML, Markdown files with `plain_text.escape_markdown`. A value that is not there is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from submillion import __version__
from submillion.plain_text import clean_controls, escape_markdown, quote_code
from submillion.report import formatting

_BREAKS = re.compile("[ \n]+")  # other spaces are there for a reason
_NUMBERS: Mapping[str, Callable[..., str]] = {
    "percent": formatting.percent,
    "percent_range": formatting.percent_range,
    "points": formatting.points,
    "points_range": formatting.points_range,
    "p_value": formatting.p_value,
    "count": formatting.count,
    "number": formatting.number,
    "duration": formatting.duration,
}
_TEXTS: Mapping[str, Callable[..., str]] = {"shorten": formatting.shorten, "setting": formatting.setting}


def render_page(template: str, /, **values: object) -> str:
    """Return a page: HTML that refers to nothing outside itself.

    Args:
        template: File of the template.
        values: Values to show: text, numbers, plots, and objects that hold these.

    Raises:
        LookupError: A value that the template shows is not there.
    """
    return _render(_open_pages(), template, values)


def render_markdown(template: str, /, **values: object) -> str:
    """Return the text of a Markdown file; see `render_page`."""
    return _render(_open_markdown(), template, values)


def _render(environment: Environment, template: str, values: Mapping[str, object]) -> str:
    try:
        text = environment.get_template(template).render(values)
    except UndefinedError as error:
        raise LookupError(str(error)) from error
    return clean_controls(text)


@cache
def _open_pages() -> Environment:
    environment = _open_environment()
    environment.filters |= {**_NUMBERS, **_TEXTS}
    return environment


@cache
def _open_markdown() -> Environment:
    environment = _open_environment()
    environment.finalize = _escape_for_markdown
    environment.filters |= {name: _mark(write) for name, write in _NUMBERS.items()}
    environment.filters |= {**_TEXTS, "code": _mark(quote_code), "json": _mark(_quote_json), "line": _join_lines}
    return environment


def _open_environment() -> Environment:
    # What is escaped must be all that is printed, so autoescape is on whatever the name of a template ends in.
    environment = Environment(
        loader=PackageLoader("submillion.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["version"] = __version__
    return environment


def _escape_for_markdown(value: object) -> object:
    return value if hasattr(value, "__html__") else Markup(escape_markdown(value))


def _mark(write: Callable[..., str]) -> Callable[..., Markup]:
    """Return a filter whose text is safe in Markdown as it is: digits and signs, or what it has quoted itself."""
    return lambda *values: Markup(write(*values))


def _quote_json(value: object) -> str:
    """Return a value as JSON, whose text is also YAML's and Python's."""
    return json.dumps(value, ensure_ascii=False)


def _join_lines(text: str) -> Markup:
    """Return a part of a template as one line: a paragraph is written over several, a cell of a table cannot be."""
    return Markup(_BREAKS.sub(" ", text if isinstance(text, Markup) else escape_markdown(text)).strip())
