"""Token ids kept between runs, by the texts and the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tokenizers

from submillion.cache import Arrays, Cache, digest_code, digest_parts, pack_strings
from submillion.data.legibility import TokenCounts
from submillion.data.long_texts import count_chunks, count_kept
from submillion.encoding.text_encoder import TextEncoder, Tokens, sum_up

_KIND = "tokens"
_COUNTED = ("lengths", "unknown", "spelled")


def recall_tokens(
    encoder: TextEncoder, texts: Sequence[str], cache: Cache, on_progress: Callable[[int], None] | None = None
) -> Tokens:
    """Return the tokens of texts from the cache, or tokenise them and keep the result.

    Args:
        encoder: Encoder that tokenises.
        texts: Any number of texts.
        cache: Cache of results.
        on_progress: Called with the number of texts done so far.
    """
    if not texts:
        return encoder.tokenise(texts)
    data, ends = pack_strings(texts)
    code = digest_code(
        "encoding/text_encoder.py", "encoding/token_cache.py", "data/long_texts.py", "data/vocabulary.py"
    )
    settings = f"{tokenizers.__version__} {encoder.sha256} {encoder.max_length} {encoder.long_texts}"
    key = digest_parts(code, settings, data, ends)
    stored = cache.load(_KIND, key)
    tokens = None if stored is None else _unpack(stored, len(texts), encoder)
    if tokens is None:
        tokens = encoder.tokenise(texts, on_progress)
        cache.store(_KIND, key, _pack(tokens))
    return tokens


def _pack(tokens: Tokens) -> Arrays:
    # Most vocabularies have fewer than 65,536 tokens, so two bytes hold a token id.
    is_small = not len(tokens.input_ids) or int(tokens.input_ids.max()) <= np.iinfo(np.uint16).max
    ids = tokens.input_ids.astype(np.uint16) if is_small else tokens.input_ids
    counts = tokens.counts
    return {
        "input_ids": ids,
        "offsets": tokens.offsets,
        "lengths": counts.lengths,
        "unknown": counts.unknown,
        "spelled": counts.spelled,
    }


def _unpack(stored: Arrays, num_texts: int, encoder: TextEncoder) -> Tokens | None:
    """Return the tokens, or None if the arrays, though undamaged, do not fit these texts."""
    if stored.keys() != {"input_ids", "offsets", *_COUNTED}:
        return None
    ids, offsets = stored["input_ids"], stored["offsets"]
    lengths, unknown, spelled = (stored[name] for name in _COUNTED)
    if {lengths.shape, unknown.shape, spelled.shape} != {(num_texts,)} or (ids.ndim, offsets.ndim) != (1, 1):
        return None
    rule = (encoder.max_length, encoder.num_special, encoder.long_texts)
    firsts = sum_up(count_chunks(lengths, *rule))
    if len(offsets) != firsts[-1] + 1 or offsets[0] != 0 or offsets[-1] != len(ids):
        return None
    if not np.array_equal(np.diff(offsets[firsts]), count_kept(lengths, *rule)) or (np.diff(offsets) < 0).any():
        return None
    counts = TokenCounts(lengths, unknown, spelled, encoder.num_special, encoder.vocabulary.unknown_kind)
    return Tokens(ids.astype(np.int32), offsets, firsts, counts)
