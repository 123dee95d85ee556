"""Where the trainable parameters go, as areas of the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from submillion.report.plots import KIND_NAMES
from submillion.report.theme import Plot, Theme, new_figure
from submillion.report.words import count, percent, shorten

WIDTH, HEIGHT = 9.2, 4.3  # inches
FONT = 8.0
SMALLEST_NAMED = 0.012  # share of the area; smaller parts are named beside the picture


@dataclass(frozen=True)
class Box:
    """A rectangle: left and lower end, width and height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Part:
    """One part of the budget.

    Attributes:
        name: What it is.
        size: Its parameters.
        pieces: What it consists of, by name; empty where it is one piece.
        colour: Position in the theme's series, or None for what has no colour.
    """

    name: str
    size: int
    pieces: tuple[tuple[str, int], ...] = ()
    colour: int | None = None


def place_boxes(sizes: Sequence[float], box: Box) -> list[Box]:
    """Divide a box into areas in proportion to sizes, as square as may be.

    Source: M. Bruls, K. Huizing and J. J. van Wijk, "Squarified treemaps", Data Visualization 2000.

    Args:
        sizes: Above zero, largest first; their sum fills the box.
        box: What is divided.
    """
    scale = box.width * box.height / sum(sizes)
    areas = [size * scale for size in sizes]
    placed: list[Box] = []
    while areas:
        side = min(box.width, box.height)
        row = 1
        while row < len(areas) and _worst(areas[: row + 1], side) <= _worst(areas[:row], side):
            row += 1
        depth = sum(areas[:row]) / side
        start = 0.0
        for area in areas[:row]:
            length = area / depth
            if box.width >= box.height:
                placed.append(Box(box.x, box.y + start, depth, length))
            else:
                placed.append(Box(box.x + start, box.y, length, depth))
            start += length
        if box.width >= box.height:
            box = Box(box.x + depth, box.y, max(box.width - depth, 1e-12), box.height)
        else:
            box = Box(box.x, box.y + depth, box.width, max(box.height - depth, 1e-12))
        areas = areas[row:]
    return placed


def _worst(areas: Sequence[float], side: float) -> float:
    """Return the largest ratio of sides among areas that share a row along `side`."""
    total = sum(areas)
    return max(side**2 * max(areas) / total**2, total**2 / (side**2 * min(areas)))


def list_parts(plan: Mapping[str, Any]) -> list[Part]:
    """Return the parts of a plan's budget, largest first: adapters by kind, head, biases, and what is left."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for module in plan.get("modules") or []:
        layer = module.get("layer")
        place = "" if layer is None else str(layer)
        kinds.setdefault(str(module.get("kind", "other")), []).append((place, int(module["params"])))
    parts = []
    for kind, pieces in kinds.items():
        colour = list(KIND_NAMES).index(kind) if kind in KIND_NAMES else 0
        total = sum(size for _, size in pieces)
        parts.append(Part(KIND_NAMES.get(kind, shorten(kind, 24)), total, tuple(pieces), colour))
    parts += [Part(name, int(plan.get(f"{key}_params", 0))) for name, key in (("head", "head"), ("biases", "bias"))]
    left = int(plan["budget"]) - sum(part.size for part in parts)
    return sorted((part for part in parts if part.size > 0), key=lambda part: -part.size) + (
        [Part("not used", left)] if left > 0 else []
    )


def _write(axes: Axes, theme: Theme, box: Box, lines: Sequence[str]) -> bool:
    """Write lines into a box where they fit; return whether they do. Sizes are in points."""
    wide = max(len(line) for line in lines) * FONT * 0.62 + 10
    high = len(lines) * FONT * 1.35 + 8
    if box.width < wide or box.height < high:
        return False
    axes.text(
        box.x + 5, box.y + box.height - 4, "\n".join(lines), ha="left", va="top", fontsize=FONT, color=theme.ink,
        linespacing=1.25,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.82, "pad": 1.5},
    )  # fmt: skip
    return True


def _draw_pieces(axes: Axes, theme: Theme, part: Part, box: Box) -> None:
    if part.colour is None:
        is_left = part.name == "not used"
        axes.add_patch(
            Rectangle(
                (box.x + 1.2, box.y + 1.2),
                max(box.width - 2.4, 0.1),
                max(box.height - 2.4, 0.1),
                linewidth=0.8 if is_left else 0,
                edgecolor=theme.muted,
                facecolor="none" if is_left else theme.faint,
                linestyle=(0, (3, 2)) if is_left else "-",
            )
        )
        return
    colour = theme.series[part.colour % len(theme.series)]
    pieces = sorted((piece for piece in part.pieces if piece[1] > 0), key=lambda piece: -piece[1])
    for inner in place_boxes([size for _, size in pieces], box):
        axes.add_patch(
            Rectangle(
                (inner.x, inner.y),
                inner.width,
                inner.height,
                facecolor=colour,
                edgecolor=theme.paper,
                linewidth=0.6,
                alpha=0.8,
            )
        )
    axes.add_patch(
        Rectangle((box.x, box.y), box.width, box.height, facecolor="none", edgecolor=theme.paper, linewidth=2.4)
    )


def draw_budget(theme: Theme, *, plan: Mapping[str, Any]) -> Figure:
    """Draw the budget as an area, divided among the parts that train; cells inside a part are its modules."""
    parts = list_parts(plan)
    figure, axes = new_figure(WIDTH, HEIGHT)
    whole = Box(0, 0, 72 * WIDTH, 72 * (HEIGHT - 0.5))
    total = sum(part.size for part in parts)
    beside = []
    order = sorted(parts, key=lambda part: -part.size)
    for part, box in zip(order, place_boxes([part.size for part in order], whole), strict=True):
        _draw_pieces(axes, theme, part, box)
        share = part.size / total
        text = [f"{count(part.size)}", f"{percent(share, 1)} of the budget"]
        fits = share >= SMALLEST_NAMED and (
            _write(axes, theme, box, [part.name, *text])
            or _write(axes, theme, box, [part.name, text[0], percent(share, 1)])
            or _write(axes, theme, box, [part.name, percent(share, 1)])
        )
        if not fits:
            beside.append(f"{part.name} {count(part.size)} ({percent(share, 1)})")
    axes.set_xlim(0, whole.width)
    axes.set_ylim(0, whole.height)
    axes.set_axis_off()
    if beside:
        figure.supxlabel(f"Too small to be named in the picture: {', '.join(beside)}", x=0.01, ha="left", fontsize=FONT)
    return figure


def budget_plot(plan: Mapping[str, Any]) -> Plot:
    """Return the picture of a plan's budget."""
    parts = list_parts(plan)
    said = "; ".join(f"{part.name} {count(part.size)}" for part in parts)
    caption = (
        f"The whole area is the budget of {count(plan['budget'])}; each cell of a colour is one adapted module, "
        "and what is not filled was left."
    )
    draw = partial(draw_budget, plan=plan)
    return Plot("budget", "Where the budget goes", caption, draw, wide=True, alt=f"Parameters by part: {said}.")
