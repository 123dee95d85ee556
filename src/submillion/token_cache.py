"""Token ids that are kept between runs, by the texts and the tokenizer that they follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tokenizers

from submillion.cache import Arrays, Cache, digest_code, digest_parts, pack_strings
from submillion.text_encoder import TextEncoder, Tokens

_KIND = "tokens"


def recall_tokens(
    encoder: TextEncoder, texts: Sequence[str], cache: Cache, on_progress: Callable[[int], None] | None = None
) -> Tokens:
    """Return the tokens of texts from the cache, or tokenise them and keep the result.

    Args:
        encoder: What tokenises.
        texts: Any number of texts.
        cache: Where results are kept.
        on_progress: Called with the number of texts done so far.
    """
    if not texts:
        return encoder.tokenise(texts)
    data, ends = pack_strings(texts)
    code = digest_code("text_encoder.py", "token_cache.py")
    settings = f"{tokenizers.__version__} {encoder.sha256} {encoder.max_length}"
    key = digest_parts(code, settings, data, ends)
    stored = cache.load(_KIND, key)
    tokens = None if stored is None else _unpack(stored, len(texts), encoder.max_length)
    if tokens is None:
        tokens = encoder.tokenise(texts, on_progress)
        cache.store(_KIND, key, _pack(tokens))
    return tokens


def _pack(tokens: Tokens) -> Arrays:
    # Most vocabularies have fewer than 65,536 tokens, so that two bytes hold one.
    is_small = not len(tokens.input_ids) or int(tokens.input_ids.max()) <= np.iinfo(np.uint16).max
    ids = tokens.input_ids.astype(np.uint16) if is_small else tokens.input_ids
    return {"input_ids": ids, "lengths": tokens.lengths, "offsets": tokens.offsets}


def _unpack(stored: Arrays, num_texts: int, max_length: int) -> Tokens | None:
    """Return the tokens, or None where the arrays, whole as they are, cannot be those of these texts."""
    if stored.keys() != {"input_ids", "lengths", "offsets"}:
        return None
    ids, lengths, offsets = stored["input_ids"], stored["lengths"], stored["offsets"]
    if (lengths.shape, offsets.shape, ids.ndim) != ((num_texts,), (num_texts + 1,), 1):
        return None
    kept = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(ids) or not np.array_equal(kept, np.minimum(lengths, max_length)):
        return None
    return Tokens(ids.astype(np.int32), offsets, lengths)
