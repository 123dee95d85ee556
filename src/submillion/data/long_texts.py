"""The part of a long text that the model reads: its head, its head and tail, or all of it in chunks.

Sun et al., "How to Fine-Tune BERT for Text Classification?" (2019), section 5.1, compare the first two and find that
head and tail together are best. Here the tail has three quarters of the room, as theirs has 382 of 510 tokens.

Chunks do not overlap: a token that is read twice costs twice and adds nothing, and only the words at a border lose
their neighbours. All chunks of a text have the same length to within one token. Otherwise a last chunk of three tokens
would have as much weight as any other, since a text's logits are the mean over its chunks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from submillion.config.run import LongTexts

_HEAD_SHARE = 4
"""The head has a quarter of the room, which is 128 of 510 tokens as in Sun et al."""


def find_places(num_tokens: int, room: int, rule: LongTexts) -> list[NDArray[np.int64]]:
    """Return the tokens of a text that are read together, one array of places for each pass.

    Args:
        num_tokens: Number of tokens of the text, special tokens excluded; more than `room`.
        room: Number of tokens read at once, special tokens excluded; 1 or more.
        rule: Part of the text that is read.

    Returns:
        Places from 0 to `num_tokens` - 1, ascending, at most `room` in each array.
    """
    if rule == "head":
        return [np.arange(room)]
    if rule == "head_tail":
        head = round(room / _HEAD_SHARE)
        return [np.concatenate([np.arange(head), np.arange(num_tokens - room + head, num_tokens)])]
    return np.array_split(np.arange(num_tokens), -(-num_tokens // room))


def count_chunks(lengths: NDArray[np.integer[Any]], limit: int, num_special: int, rule: LongTexts) -> NDArray[np.int64]:
    """Return the number of pieces in which each text is read.

    Args:
        lengths: Number of tokens of each text, special tokens included; shape (n,).
        limit: Number of tokens read at once, special tokens included.
        num_special: Number of special tokens that every piece has.
        rule: Part of a longer text that is read.

    Returns:
        Numbers of 1 or more, shape (n,).
    """
    if rule != "chunks":
        return np.ones(len(lengths), np.int64)
    own = lengths.astype(np.int64) - num_special
    pieces: NDArray[np.int64] = np.where(lengths > limit, -(-own // (limit - num_special)), 1)
    return pieces


def count_kept(lengths: NDArray[np.integer[Any]], limit: int, num_special: int, rule: LongTexts) -> NDArray[np.int64]:
    """Return the number of tokens that are read of each text, the special tokens of every piece included.

    Args:
        lengths: Number of tokens of each text, special tokens included; shape (n,).
        limit: Number of tokens read at once, special tokens included.
        num_special: Number of special tokens that every piece has.
        rule: Part of a longer text that is read.

    Returns:
        Numbers, shape (n,).
    """
    if rule != "chunks":
        cut: NDArray[np.int64] = np.minimum(lengths.astype(np.int64), limit)
        return cut
    pieces = count_chunks(lengths, limit, num_special, rule)
    return lengths.astype(np.int64) + (pieces - 1) * num_special
