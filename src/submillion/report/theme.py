"""One look for all plots, and their two forms: SVG that follows the page's colours, and PNG.

The SVG is drawn with placeholder colours that are then replaced by CSS variables, so one drawing serves light
mode, dark mode and print; its text stays text, in the font of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


@dataclass(frozen=True)
class Theme:
    """Colours of a plot: text, secondary text, grid lines, background and six series."""

    ink: str
    muted: str
    faint: str
    paper: str
    series: tuple[str, str, str, str, str, str]


# Series: M. Okabe and K. Ito, "Color universal design" (2008), told apart with any common colour vision.
PRINTED = Theme(
    "#1f2328", "#59616b", "#dfe3e8", "#ffffff", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
)
# Colours that nothing else uses, each standing for one CSS variable.
_PLACEHOLDERS = Theme(
    "#010203", "#010204", "#010205", "#010206", ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
)
_VARIABLES = {
    _PLACEHOLDERS.ink: "var(--ink)",
    _PLACEHOLDERS.muted: "var(--muted)",
    _PLACEHOLDERS.faint: "var(--rule)",
    _PLACEHOLDERS.paper: "var(--paper)",
} | {colour: f"var(--series-{number})" for number, colour in enumerate(_PLACEHOLDERS.series, start=1)}
_PLACEHOLDER = re.compile("|".join(_VARIABLES))
_REFERENCE = re.compile(r"url\(#")

# What tells series apart where colours do not: in print without colours, and for eyes that see few of them.
LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)), (0, (8, 2)), (0, (2, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")

Draw = Callable[[Theme], Figure]


class PlotFigure(Figure):
    """A figure that a notebook shows as a report does."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(_settings(PRINTED)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            self.savefig(buffer, format="png", dpi=110, facecolor=PRINTED.paper)
        return buffer.getvalue()


@dataclass(frozen=True)
class Plot:
    """A plot of a report.

    Attributes:
        name: File name of the PNG without its ending.
        title: Title of the plot.
        caption: How to read it; may be empty.
        draw: Makes the figure in the colours of a theme.
        wide: Whether it takes the whole width of the page.
        alt: Its content in words and figures, for those who do not see it; may be empty.
    """

    name: str
    title: str
    caption: str
    draw: Draw
    wide: bool = False
    alt: str = ""

    def __html__(self) -> str:
        """Return the drawing as a template shows it."""
        return render_svg(self)


def _settings(theme: Theme) -> dict[Any, Any]:
    return {
        "text.parse_math": False,  # class names are text, also those with dollar signs
        "svg.fonttype": "none",
        "svg.hashsalt": "submillion",
        "font.family": ["DejaVu Sans"],
        "font.size": 8.5,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.muted,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "grid.color": theme.faint,
        "grid.linewidth": 0.7,
        "hatch.linewidth": 0.7,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.major.width": 0.6,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 1.4,
        "legend.borderaxespad": 0,
    }


_DRAWN_INTO: ContextVar[SubFigure | None] = ContextVar("drawn_into", default=None)


@contextmanager
def _drawing_into(part: SubFigure) -> Iterator[None]:
    """Have the next `new_figure` hand out a part of a larger figure."""
    token = _DRAWN_INTO.set(part)
    try:
        yield
    finally:
        _DRAWN_INTO.reset(token)


def new_figure(width: float = 4.4, height: float = 2.8) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; sizes in inches, 4.4 being half the page."""
    part = _DRAWN_INTO.get()
    if part is not None:
        return cast("Figure", part), part.subplots()
    figure = PlotFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def new_grid(number: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `number` pairs of axes in rows; `width` of the whole and `height` of a row in inches."""
    columns = min(columns, number)
    rows = -(-number // columns)
    figure = PlotFigure(figsize=(width, height * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid[number:]:
        axes.remove()
    return figure, grid[:number]


def draw_figure(plot: Plot) -> Figure:
    """Return the plot as a figure in light colours with its title, for a notebook or a file of any kind."""
    with mpl.rc_context(_settings(PRINTED)):
        figure = plot.draw(PRINTED)
        figure.suptitle(plot.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.set_facecolor(PRINTED.paper)
    return figure


def _save(plot: Plot, theme: Theme, kind: str, *, titled: bool) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(_settings(theme)), warnings.catch_warnings():
        # Names in scripts that the font lacks show as boxes in the PNG; in the SVG the page's fonts show them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = plot.draw(theme)
        if titled:
            figure.suptitle(plot.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        if kind == "png":
            figure.savefig(buffer, format="png", dpi=200, facecolor=theme.paper, metadata=_describe(plot))
        else:
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def draw_figures(plots: Sequence[Plot]) -> Figure:
    """Return several plots of half the page's width in one figure in light colours, each with its title."""
    if len(plots) == 1:
        return draw_figure(plots[0])
    columns = min(2, len(plots))
    rows = -(-len(plots) // columns)
    whole = PlotFigure(figsize=(4.6 * columns, 2.95 * rows), layout="constrained", facecolor=PRINTED.paper)
    parts = whole.subfigures(rows, columns, squeeze=False).ravel().tolist()
    with mpl.rc_context(_settings(PRINTED)):
        for part, plot in zip(parts, plots, strict=False):
            with _drawing_into(part):
                plot.draw(PRINTED)
            part.suptitle(plot.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return whole


def _describe(plot: Plot) -> dict[str, str | None]:
    # Text chunks of a PNG are Latin-1 or compressed UTF-8; the library writes either by itself.
    return {"Software": None, "Title": plot.title, "Description": plot.alt or plot.caption or plot.title}


def render_png(plot: Plot) -> bytes:
    """Return the plot as PNG, in light colours, with its title."""
    return _save(plot, PRINTED, "png", titled=True)


def render_svg(plot: Plot) -> str:
    """Return the plot as inline SVG in the colours of the page, without a title.

    Ids get the plot's name as prefix, so that several drawings share a page.
    """
    root = ElementTree.fromstring(_save(plot, _PLACEHOLDERS, "svg", titled=False))
    prefix = f"{plot.name}-"
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            new = _REFERENCE.sub(f"url(#{prefix}", _PLACEHOLDER.sub(lambda m: _VARIABLES[m[0]], value))
            if key == "id":
                new = prefix + value
            elif key == f"{{{XLINK}}}href" and value.startswith("#"):
                new = f"#{prefix}{value[1:]}"
            node.set(key, new)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", f"{plot.title}. {plot.alt}".strip(" ."))
    return ElementTree.tostring(root, encoding="unicode")
