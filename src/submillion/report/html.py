"""HTML built from elements: text is escaped by construction, so nothing read from data can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from submillion.plain_text import clean_controls


class Html(str):
    """Finished markup. Everything else that goes into an element is text and is escaped."""

    __slots__ = ()


def _escape(text: str) -> str:
    return html.escape(clean_controls(text))


Child: TypeAlias = "str | Iterable[Child]"


def render(*children: Child) -> Html:
    """Join children: `Html` as it is, any other string escaped, iterables in order."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(_escape(child))
        else:
            parts.extend(render(part) for part in child)
    return Html("".join(parts))


def element(name: str, *children: Child, **attributes: str) -> Html:
    """Return one element.

    Args:
        name: Tag name.
        children: Text (escaped) and `Html` (kept).
        attributes: Values are escaped; ``class_`` stands for ``class`` and ``_`` for ``-``.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{render(*children)}</{name}>")


def table(
    head: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    numeric: Iterable[int] = (),
    class_: str = "",
    label: str = "",
) -> Html:
    """Return a table in a box that scrolls sideways on narrow screens.

    Args:
        head: Column titles.
        rows: Cells; the first of each row heads it.
        numeric: Positions of the columns that are aligned to the right.
        class_: Extra class of the table.
        label: Its name for those who do not see it; its column titles if empty.
    """
    right = set(numeric)

    def cell(tag: str, position: int, content: Child, **attributes: str) -> Html:
        extra = {"class_": "number"} if position in right else {}
        return element(tag, content, **attributes, **extra)

    top = element("tr", [cell("th", number, title, scope="col") for number, title in enumerate(head)])
    body = [
        element(
            "tr",
            [cell("td", n, content) if n else cell("th", n, content, scope="row") for n, content in enumerate(row)],
        )
        for row in rows
    ]
    inner = element("table", element("thead", top), element("tbody", body), class_=class_)
    name = label or "Table: " + ", ".join(title for title in head if isinstance(title, str) and title)
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=name)


def pairs(rows: Iterable[tuple[str, Child]]) -> Html:
    """Return a list of terms and their values."""
    return element("dl", [element("div", element("dt", term), element("dd", value)) for term, value in rows])
