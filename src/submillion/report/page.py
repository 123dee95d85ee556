"""The page around a report: head, style, navigation, and how plots and key figures stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from submillion import __version__
from submillion.report.html import Child, Html, element, render
from submillion.report.theme import Plot, render_svg


@dataclass(frozen=True)
class Section:
    """A titled part of the page.

    Attributes:
        anchor: Its id, for links.
        name: Short name in the navigation.
        title: Heading.
        content: What stands under it.
    """

    anchor: str
    name: str
    title: str
    content: Html


@dataclass(frozen=True)
class KeyFigure:
    """One large number.

    Attributes:
        name: What it is.
        value: The number with its unit.
        detail: A line beneath it.
        share: Filled share of a meter, 0..1, where one is shown.
    """

    name: str
    value: str
    detail: str = ""
    share: float | None = None


def show_plot(plot: Plot) -> Html:
    """Return a plot as a figure with its title and caption."""
    caption = element("figcaption", element("strong", plot.title), element("span", plot.caption))
    drawing = render_svg(plot)
    if not plot.wide:
        return element("figure", caption, drawing)
    # Wide drawings scroll on narrow screens, so keys must reach them.
    box = element("div", drawing, class_="wide-plot", tabindex="0", role="region", aria_label=plot.title)
    return element("figure", caption, box, class_="wide")


def show_plots(plots: Iterable[Plot]) -> Html:
    """Return plots side by side where there is room."""
    return element("div", [show_plot(plot) for plot in plots], class_="plots")


def show_figures(figures: Iterable[KeyFigure]) -> Html:
    """Return the row of large numbers."""

    def meter(figure: KeyFigure) -> Child:
        if figure.share is None:
            return ""
        return element("div", element("span", style=f"width:{100 * min(1.0, figure.share):.2f}%"), class_="meter")

    return element(
        "dl",
        [
            element(
                "div",
                element("dt", figure.name, class_="name"),
                element(
                    "dd",
                    element("div", figure.value, class_="value"),
                    meter(figure),
                    element("div", figure.detail, class_="detail"),
                ),
                class_="figure",
            )
            for figure in figures
        ],
        class_="figures",
    )


def paragraph(*children: Child, class_: str = "") -> Html:
    """Return a paragraph."""
    return element("p", *children, class_=class_) if class_ else element("p", *children)


def build_page(title: str, heading: Html, opening: Html, sections: Sequence[Section]) -> str:
    """Return the whole document; it refers to nothing outside itself.

    Args:
        title: Of the window.
        heading: Name of the run and what it is.
        opening: Key figures and verdict, after the navigation.
        sections: In order.
    """
    style = resources.files("submillion.report").joinpath("style.css").read_text(encoding="utf-8")
    links = [element("li", element("a", section.name, href=f"#{section.anchor}")) for section in sections]
    body = element(
        "div",
        heading,
        element("nav", element("ul", links), aria_label="Sections"),
        opening,
        [element("section", element("h2", section.title), section.content, id=section.anchor) for section in sections],
        element("footer", f"Written by submillion {__version__}. Every interval is a 95\u202f% interval."),
        class_="page",
    )
    document = element(
        "html",
        element(
            "head",
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            element("title", title),
            Html(f"<style>\n{style}</style>"),
        ),
        element("body", body),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{render(document)}\n"
