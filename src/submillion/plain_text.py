"""Text from data made harmless for readers: without control characters for terminals and pages, without Markdown."""

from __future__ import annotations

import re

# These are control characters except tab and newline, marks of direction, halves of surrogate pairs and numbers without
# a character. A terminal acts on some of them, and a page may hold none.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+!|~$@]|(?<=www)\.|:(?=//)")
_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def clean_controls(text: str) -> str:
    """Return the text with every control character replaced, so that it cannot control a terminal or a page."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def escape_markdown(text: object) -> str:
    """Return anything as one line that Markdown and HTML show as plain text."""
    line = clean_controls(" ".join(str(text).split()))
    line = re.sub("[<>&]", lambda found: _HTML[found[0]], line)
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", line)


def quote_code(text: object) -> str:
    """Return anything as code within a line of Markdown; no character in it can end the code."""
    line = clean_controls(" ".join(str(text).split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    # A space separates a backtick at the beginning or end from the fence, and is not shown.
    space = " " if "`" in line or not line else ""
    return f"{fence}{space}{line}{space}{fence}"
