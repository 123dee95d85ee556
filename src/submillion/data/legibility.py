"""The share of the texts that reaches the model: unknown tokens, words spelled letter by letter, and cut tokens.

Figures are counted during tokenising and summed here over rows and classes. Sentences are made from their JSON, so
that a command, a run in progress and the report of an old run all say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import LongTexts
from submillion.data.long_texts import count_kept
from submillion.data.vocabulary import UnknownKind
from submillion.storage.json_shapes import JsonObject, JsonView

LOUD_UNKNOWN = 0.05
"""Share of unknown tokens above which users are warned: a sentence of twenty words loses one. English news has less
than one in a thousand."""
LOUD_SPELLED = 0.5
"""Share of single-letter tokens above which users are warned. English has about one in twenty (`a`, `s`). Above one
half, most words are spelled letter by letter, as Russian or Greek is by an English base."""
LOUD_CUT = 0.1
"""Share of cut tokens above which users are warned: a tenth of the text is not read. A share of rows would mislead,
since a row that loses one token of 257 has lost almost nothing."""

_LOUD = {"unknown_share": LOUD_UNKNOWN, "spelled_share": LOUD_SPELLED, "cut_tokens_share": LOUD_CUT}
_SHOWN_CLASSES = 6
_MULTILINGUAL = "--base FacebookAI/xlm-roberta-base, or another base that was trained on the language"


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """Counts for each text from tokenising.

    Attributes:
        lengths: Number of tokens, uncut, special tokens included; shape (n,), int32.
        unknown: Number of unknown tokens, as `data.vocabulary` defines them; shape (n,), int32.
        spelled: Number of tokens that are one letter of an alphabet; shape (n,), int32.
        num_special: Number of special tokens that every text gets.
        unknown_kind: Kind of the unknown tokens.
    """

    lengths: NDArray[np.int32]
    unknown: NDArray[np.int32]
    spelled: NDArray[np.int32]
    num_special: int
    unknown_kind: UnknownKind


@dataclass(frozen=True)
class TextFigures:
    """Sums over some texts, special tokens excluded.

    Attributes:
        num_records: Number of texts.
        num_tokens: Number of tokens, uncut.
        num_characters: Number of characters.
        num_unknown_tokens: Number of unknown tokens.
        num_spelled_tokens: Number of tokens that are single letters.
        num_long: Number of texts longer than the model reads at once.
        num_cut: Number of texts that are read in part only.
        num_tokens_cut: Number of tokens that are not read.
    """

    num_records: int = 0
    num_tokens: int = 0
    num_characters: int = 0
    num_unknown_tokens: int = 0
    num_spelled_tokens: int = 0
    num_long: int = 0
    num_cut: int = 0
    num_tokens_cut: int = 0

    def __add__(self, other: TextFigures) -> TextFigures:
        """Return the sums over the texts of both."""
        ours, theirs = vars(self), vars(other)
        return TextFigures(**{name: ours[name] + theirs[name] for name in ours})

    def to_json(self) -> JsonObject:
        """Return the sums and their shares, 0..1; a share of zero is 0."""
        return {
            **vars(self),  # asdict would copy eight numbers for each of many classes
            "unknown_share": _divide(self.num_unknown_tokens, self.num_tokens),
            "spelled_share": _divide(self.num_spelled_tokens, self.num_tokens),
            "cut_records_share": _divide(self.num_cut, self.num_records),
            "cut_tokens_share": _divide(self.num_tokens_cut, self.num_tokens),
            "tokens_per_character": _divide(self.num_tokens, self.num_characters),
        }


@dataclass(frozen=True)
class Legibility:
    """The share of some texts that reaches the model.

    Attributes:
        max_length: Number of tokens read at once, special tokens included.
        long_texts: Part of a longer text that is read.
        unknown_kind: Kind of the unknown tokens: one token for all, or the bytes of a character.
        whole: Sums over all texts.
        classes: Sums over the texts of each class by name; empty if texts have no labels.
    """

    max_length: int
    long_texts: LongTexts
    unknown_kind: UnknownKind
    whole: TextFigures
    classes: Mapping[str, TextFigures]

    def __add__(self, other: Legibility) -> Legibility:
        """Return the figures of the texts of both, which were read under the same settings."""
        names = dict.fromkeys([*self.classes, *other.classes])
        nothing = TextFigures()
        sums = {name: self.classes.get(name, nothing) + other.classes.get(name, nothing) for name in names}
        return Legibility(self.max_length, self.long_texts, self.unknown_kind, self.whole + other.whole, sums)

    def to_json(self) -> JsonObject:
        """Return settings, sums and shares, and those of each class under ``classes``."""
        return {
            "max_length": self.max_length,
            "long_texts": self.long_texts,
            "unknown_kind": self.unknown_kind,
            **self.whole.to_json(),
            "classes": {name: figures.to_json() for name, figures in self.classes.items()},
        }


def measure_legibility(
    texts: Sequence[str],
    counts: TokenCounts,
    labels: Sequence[int | None],
    names: Sequence[str],
    *,
    max_length: int,
    long_texts: LongTexts,
) -> Legibility:
    """Sum the counts of texts, overall and by class.

    Args:
        texts: Texts, n of them.
        counts: Counts from tokenising these texts.
        labels: Label id of each text, or None.
        names: Class names in the order of label ids.
        max_length: Number of tokens read at once, special tokens included.
        long_texts: Part of a longer text that is read.
    """
    lengths = counts.lengths.astype(np.int64)
    kept = count_kept(lengths, max_length, counts.num_special, long_texts)
    cut = np.maximum(lengths - kept, 0)
    is_long = lengths > max_length
    columns = np.stack(
        [
            np.ones(len(lengths), np.int64),
            np.maximum(lengths - counts.num_special, 0),
            np.fromiter(map(len, texts), np.int64, len(texts)),
            counts.unknown,
            counts.spelled,
            is_long,
            cut > 0,
            cut,
        ]
    )
    ids = np.array([-1 if label is None else label for label in labels], np.int64)
    known = (ids >= 0) & (ids < len(names))
    sums = np.zeros((len(names), len(columns)), np.int64)
    for place, column in enumerate(columns):
        # Sums of counts stay exact in float64, whose whole numbers reach 2**53.
        sums[:, place] = np.bincount(ids[known], weights=column[known], minlength=len(names))[: len(names)]
    classes = {name: TextFigures(*row) for name, row in zip(names, sums.tolist(), strict=True)} if known.any() else {}
    whole = TextFigures(*columns.sum(axis=1).tolist())
    return Legibility(max_length, long_texts, counts.unknown_kind, whole, classes)


def list_loud(figures: JsonView) -> list[str]:
    """Return the shares, of all texts or of one class, that are so large that a user must be warned.

    Args:
        figures: Object from `Legibility.to_json`.
    """
    parts = [figures, *figures["classes"].values()]
    return [share for share, limit in _LOUD.items() if any(part[share] >= limit for part in parts)]


def describe_legibility(
    figures: JsonView, *, what: str, loud_only: bool = False, known: Sequence[str] = ()
) -> list[str]:
    """Return a sentence for each thing that keeps texts from the model; warnings also say what to do.

    Args:
        figures: Object from `Legibility.to_json`; empty for runs without one.
        what: Name of the texts, such as ``training texts``.
        loud_only: Whether to return warnings only.
        known: Shares from `list_loud` about which the user has been warned already.
    """
    if not figures:
        return []
    loud = list_loud(figures)
    # Single letters occur in all texts, so they mean something only where words are spelled.
    is_there = {
        "unknown_share": figures["num_unknown_tokens"] > 0,
        "spelled_share": "spelled_share" in loud,
        "cut_tokens_share": figures["num_cut"] > 0,
    }
    lines = []
    for share, (tell, advise) in _TELLERS.items():
        if not is_there[share] or share in known or (loud_only and share not in loud):
            continue
        sentence = tell(figures, what) + _name_classes(figures, share)
        lines.append(f"warning: {sentence}. {advise(figures)}" if share in loud else sentence)
    if figures["num_long"] > figures["num_cut"] and not loud_only:
        lines.append(
            f"{figures['num_long']:,} of {figures['num_records']:,} {what} are longer than "
            f"{figures['max_length']:,} tokens and are read in chunks"
        )
    return lines


def explain_unread(data: JsonView) -> str:
    """Return why a model may know less than a baseline that reads whole texts; empty if nothing suggests it.

    Args:
        data: Content of a run's data.json.
    """
    figures = (data.get("check") or {}).get("legibility") or {}
    if not figures:
        return ""
    unknown, spelled, cut = (figures[name] for name in ("unknown_share", "spelled_share", "cut_tokens_share"))
    loud = list_loud(figures)
    reasons = []
    if "unknown_share" in loud:
        by_class = _name_classes(figures, "unknown_share")
        reasons.append(f"{unknown:.1%} of the tokens are unknown to its base{by_class}")
    if "spelled_share" in loud:
        reasons.append(f"{spelled:.1%} of the tokens are single letters to its base")
    if "cut_tokens_share" in loud:
        by_class = _name_classes(figures, "cut_tokens_share")
        reasons.append(
            f"{cut:.1%} of all tokens are cut off{by_class}, which the baseline reads; model.long_texts=chunks reads "
            "them too"
        )
    return "The model could not read its whole texts: " + "; ".join(reasons) if reasons else ""


def _divide(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _tell_unknown(figures: JsonView, what: str) -> str:
    kind = (
        "are unknown to the base, which cannot see what they were"
        if figures["unknown_kind"] == "token"
        else "are single bytes of characters that the base does not know"
    )
    return (
        f"{figures['unknown_share']:.2%} of the tokens of {what} ({figures['num_unknown_tokens']:,} of "
        f"{figures['num_tokens']:,}) {kind}"
    )


def _tell_spelled(figures: JsonView, what: str) -> str:
    return (
        f"{figures['spelled_share']:.1%} of the tokens of {what} are single letters: the base has no words of this "
        f"script and spells them ({figures['tokens_per_character']:.2f} tokens a character; English has 0.2 to 0.3)"
    )


def _tell_cut(figures: JsonView, what: str) -> str:
    kept = "their first and last" if figures["long_texts"] == "head_tail" else "their first"
    return (
        f"{figures['num_cut']:,} of {figures['num_records']:,} {what} ({figures['cut_records_share']:.1%}) are cut to "
        f"{kept} {figures['max_length']:,} tokens; {figures['cut_tokens_share']:.1%} of all tokens are not read"
    )


def _advise_base(_: JsonView) -> str:
    return f"Choose a base that knows these texts: {_MULTILINGUAL}."


def _advise_length(figures: JsonView) -> str:
    return (
        "Read all of them with --set model.long_texts=chunks"
        + ("" if figures["long_texts"] == "head_tail" else ", their beginning and end with head_tail")
        + ", or more of them with a larger model.max_length, up to what the base reads."
    )


def _name_classes(figures: JsonView, share: str) -> str:
    """Return the shares of the classes with the largest ones in brackets; empty if there are no labels."""
    shares = {name: part[share] for name, part in figures["classes"].items() if part["num_records"]}
    if not shares:
        return ""
    first = sorted(shares, key=lambda name: -shares[name])[:_SHOWN_CLASSES]
    more = ", ..." if len(shares) > len(first) else ""
    return " (by class: " + ", ".join(f"{name} {shares[name]:.1%}" for name in first) + f"{more})"


_TELLERS = {
    "unknown_share": (_tell_unknown, _advise_base),
    "spelled_share": (_tell_spelled, _advise_base),
    "cut_tokens_share": (_tell_cut, _advise_length),
}
