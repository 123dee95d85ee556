"""What is read of a text that is longer than the model reads at once: its head, its head and tail, or all in chunks.

Sun et al., "How to Fine-Tune BERT for Text Classification?" (2019), section 5.1, compare the first two and find that
the head and the tail of a document together serve best; the tail has three quarters of the room, as theirs has 382 of
510 tokens.

Chunks do not overlap: a token that is read twice costs twice and tells nothing new, and only the words at a border
lose their neighbours. All chunks of a text are of the same length to within one token. With full chunks and a rest, a
last chunk of three tokens would have as much of a say as all others, since a text's logits are the mean of its chunks'.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import LongTexts

_HEAD_SHARE = 4
"""The head has one part in four of the room; 128 of 510 tokens, as Sun et al. have it."""


def find_places(num_tokens: int, room: int, rule: LongTexts) -> list[NDArray[np.int64]]:
    """Return which tokens of a text are read together, one array of places for each pass.

    Args:
        num_tokens: Tokens of the text, special tokens excluded; more than `room`.
        room: Tokens read at once, special tokens excluded; 1 or more.
        rule: What is kept of the text.

    Returns:
        Places of 0 to `num_tokens` - 1, ascending, at most `room` in each array.
    """
    if rule == "head":
        return [np.arange(room)]
    if rule == "head_tail":
        head = round(room / _HEAD_SHARE)
        return [np.concatenate([np.arange(head), np.arange(num_tokens - room + head, num_tokens)])]
    return np.array_split(np.arange(num_tokens), -(-num_tokens // room))


def count_chunks(lengths: NDArray[np.integer[Any]], limit: int, num_special: int, rule: LongTexts) -> NDArray[np.int64]:
    """Return in how many pieces each text is read.

    Args:
        lengths: Tokens of each text, special tokens included; shape (n,).
        limit: Tokens read at once, special tokens included.
        num_special: Special tokens that every piece has.
        rule: What is kept of a longer text.

    Returns:
        Shape (n,), 1 or more.
    """
    if rule != "chunks":
        return np.ones(len(lengths), np.int64)
    own = lengths.astype(np.int64) - num_special
    pieces: NDArray[np.int64] = np.where(lengths > limit, -(-own // (limit - num_special)), 1)
    return pieces


def count_kept(lengths: NDArray[np.integer[Any]], limit: int, num_special: int, rule: LongTexts) -> NDArray[np.int64]:
    """Return how many tokens are read of each text, the special tokens of every piece included.

    Args:
        lengths: Tokens of each text, special tokens included; shape (n,).
        limit: Tokens read at once, special tokens included.
        num_special: Special tokens that every piece has.
        rule: What is kept of a longer text.

    Returns:
        Shape (n,).
    """
    if rule != "chunks":
        cut: NDArray[np.int64] = np.minimum(lengths.astype(np.int64), limit)
        return cut
    pieces = count_chunks(lengths, limit, num_special, rule)
    return lengths.astype(np.int64) + (pieces - 1) * num_special


def describe_rule(limit: object, rule: str) -> str:
    """Return one sentence on what is read of long texts, for those who load a model with other libraries.

    Args:
        limit: Tokens read at once, special tokens included, as it is to be shown.
        rule: What is read of a longer text.
    """
    if rule == "chunks":
        return (
            f"A text of more than {limit} tokens, special tokens included, is read in as few consecutive chunks as "
            "hold it, all about as long, and the mean of their logits counts (`long_texts: chunks`); stock libraries "
            "read its beginning alone and answer otherwise."
        )
    if rule == "head_tail":
        return (
            f"Of a text of more than {limit} tokens, special tokens included, a quarter of the room holds the "
            "beginning and the rest the end (`long_texts: head_tail`); stock libraries cut off the end and answer "
            "otherwise."
        )
    return f"Texts are cut after {limit} tokens."
