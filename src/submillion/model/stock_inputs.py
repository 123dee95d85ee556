"""What the stock libraries are given of a text, so that they read as much of it as a run does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from submillion.encoding.text_encoder import TextEncoder


def list_inputs(tokenizer: Any, text: str, encoder: TextEncoder) -> list[Any]:
    """Return the inputs of a stock model for one text: one, or one for each chunk, whose logits are to be averaged.

    Args:
        tokenizer: The tokenizer of transformers.
        text: The text.
        encoder: Knows what is read of long texts.
    """
    if encoder.long_texts == "head":
        return [tokenizer(text, truncation=True, max_length=encoder.max_length, return_tensors="pt")]
    # The stock libraries know no other rule than `head`; the tokens are theirs, the cut is the run's.
    whole = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    is_special = np.array(whole["special_tokens_mask"], np.bool_)
    pieces = encoder.cut(np.array(whole["input_ids"], np.int32), is_special)
    return [{"input_ids": torch.from_numpy(piece.astype(np.int64))[None]} for piece in pieces]
