"""Rows with equal or nearly equal texts, found once, then used to split the rows and to examine the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.data.near import Progress, find_near_links, normalise_text, unite
from submillion.records import Record

MIN_COLUMN_WORDS = 5
"""Shorter columns repeat without meaning anything ("Business briefs")."""

_Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class SimilarTexts:
    """The distinct texts of some sets of rows, by number, and the links between near texts.

    Attributes:
        keys: Number of each row's normalised text among all distinct ones, shape (n,), by set; -1 for empty rows.
        columns: Numbers of the normalised columns, shape (n, columns), by set; -1 for those too short to mean anything.
        links: Pairs of near texts, shape (pairs, 2), the lower number first, as far as `find_near_links` returns them.
    """

    keys: Mapping[str, _Numbers]
    columns: Mapping[str, _Numbers]
    links: _Numbers


def fold_columns(columns: Sequence[str]) -> str:
    """Return the text that decides whether two rows are equal; empty for a row without any text."""
    # A text that is all punctuation is not an empty row, so it is compared unchanged.
    return " ".join(filter(None, map(normalise_text, columns))) or " ".join(filter(None, columns)).strip()


def find_similar_texts(sets: Mapping[str, Sequence[Record]], on_progress: Progress | None = None) -> SimilarTexts:
    """Number the texts of some sets of rows and find those that are near to each other.

    Args:
        sets: Rows by name. The links do not depend on the order of the rows.
        on_progress: Called with a description of each step.
    """
    texts: dict[str, int] = {}
    columns: dict[str, int] = {}
    keys: dict[str, _Numbers] = {}
    numbers: dict[str, _Numbers] = {}
    for name, rows in sets.items():
        keys[name] = np.full(len(rows), -1, np.int64)
        found: list[list[int]] = []
        for row, record in enumerate(rows):
            words = [normalise_text(column) for column in record.columns]
            key = " ".join(filter(None, words)) or record.text.strip()
            if key:
                keys[name][row] = texts.setdefault(key, len(texts))
            found.append(
                [
                    columns.setdefault(column, len(columns)) if column.count(" ") >= MIN_COLUMN_WORDS - 1 else -1
                    for column in words
                ]
            )
        width = max((len(row) for row in found), default=0)
        padded = [row + [-1] * (width - len(row)) for row in found]
        numbers[name] = np.array(padded, np.int64).reshape(len(rows), width)
    links = _link(list(texts), np.arange(len(texts)), keys, on_progress)
    return SimilarTexts(keys, numbers, links)


def group_rows(similar: SimilarTexts, name: str) -> _Numbers:
    """Return the group of each row of a set, shape (n,): rows of one group are equal, near, or linked through others.

    Each empty row is its own group.
    """
    keys = similar.keys[name]
    roots = _find_roots(similar, [name])
    groups = np.where(keys >= 0, roots[np.maximum(keys, 0)] if len(roots) else -1, -1)
    is_empty = keys < 0
    groups[is_empty] = len(roots) + np.arange(int(is_empty.sum()))
    return groups


def list_rows_found_in(similar: SimilarTexts, name: str, others: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether each row of a set appears in other sets, exactly or nearly, shape (n,)."""
    is_in = np.zeros(_count_texts(similar) + 1, np.bool_)  # the last place is for empty rows
    for other in others:
        is_in[similar.keys[other]] = True
    is_in[-1] = False
    is_near = is_in.copy()
    left, right = similar.links[:, 0], similar.links[:, 1]
    is_near[left[is_in[right]]] = True
    is_near[right[is_in[left]]] = True
    found: NDArray[np.bool_] = is_near[similar.keys[name]]
    return found


def narrow_to(
    similar: SimilarTexts,
    sets: Mapping[str, Sequence[Record]],
    parts: Mapping[str, Sequence[Record]],
    origins: Mapping[str, str],
) -> SimilarTexts:
    """Return the similar texts of some parts of the rows, as a search among these parts alone would find them.

    Only groups that have lost a text are searched again, since that text may have linked the others.

    Args:
        similar: Similar texts among `sets`.
        sets: All rows.
        parts: Some of these rows, each at most once; rows of one group of a set are in one part.
        origins: Set that the rows of each part come from, by part that has rows.
    """
    keys: dict[str, _Numbers] = {}
    columns: dict[str, _Numbers] = {}
    places = {name: {record.id: row for row, record in enumerate(sets[name])} for name in set(origins.values())}
    for part, rows in parts.items():
        if not rows:
            keys[part], columns[part] = np.empty(0, np.int64), np.empty((0, 0), np.int64)
            continue
        origin = origins[part]
        at = np.array([places[origin][record.id] for record in rows], np.int64)
        keys[part], columns[part] = similar.keys[origin][at], similar.columns[origin][at]
    is_left = np.zeros(_count_texts(similar) + 1, np.bool_)
    for numbers in keys.values():
        is_left[numbers] = True
    is_left = is_left[:-1]
    roots = _find_roots(similar, list(similar.keys))
    has_lost = np.zeros(len(roots), np.bool_)
    has_lost[roots[~is_left]] = True
    is_open = is_left & has_lost[roots]
    links = similar.links[is_left[similar.links].all(axis=1)]
    if is_open.any():
        texts: dict[int, str] = {}
        for part, rows in parts.items():
            for row in np.flatnonzero((keys[part] >= 0) & is_open[keys[part]]).tolist():
                texts.setdefault(int(keys[part][row]), fold_columns(rows[row].columns))
        again = _link(list(texts.values()), np.array(list(texts), np.int64), keys, None)
        links = np.unique(np.concatenate([links[~is_open[links[:, 0]]], again]), axis=0)
    return SimilarTexts(keys, columns, links)


def _count_texts(similar: SimilarTexts) -> int:
    return 1 + max((int(keys.max()) for keys in similar.keys.values() if len(keys)), default=-1)


def _link(
    texts: Sequence[str], numbers: _Numbers, keys: Mapping[str, _Numbers], on_progress: Progress | None
) -> _Numbers:
    """Return the near pairs among some texts, by their numbers."""
    # The texts are sorted, so that nothing depends on the order of the rows.
    order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
    if not len(order):
        return np.empty((0, 2), np.int64)
    ordered = numbers[order]
    is_in = np.stack([np.isin(ordered, part) for part in keys.values()], axis=1)
    found = find_near_links([texts[place] for place in order.tolist()], is_in, on_progress)
    return np.unique(np.sort(ordered[found], axis=1), axis=0)


def _find_roots(similar: SimilarTexts, names: Sequence[str]) -> _Numbers:
    """Return, for every text, the lowest number among the texts linked with it inside some sets."""
    is_in = np.zeros(_count_texts(similar) + 1, np.bool_)
    for name in names:
        is_in[similar.keys[name]] = True
    roots = np.arange(len(is_in) - 1)
    links = similar.links[is_in[similar.links].all(axis=1)]
    unite(roots, links[:, 0], links[:, 1])
    return roots
