"""Inputs for the stock libraries that cover the same part of a text as a run reads."""

from __future__ import annotations

import numpy as np
import torch

from submillion.encoding.text_encoder import TextEncoder
from submillion.model.untyped import Stock


def list_inputs(tokenizer: Stock, text: str, encoder: TextEncoder) -> list[Stock]:
    """Return the inputs of a stock model for one text: a single one, or one per chunk, whose logits must be averaged.

    Args:
        tokenizer: The tokenizer of transformers.
        text: The text.
        encoder: The run's text encoder, which knows which part of a long text is read.
    """
    if encoder.long_texts == "head":
        return [tokenizer(text, truncation=True, max_length=encoder.max_length, return_tensors="pt")]
    # The stock libraries can only keep the beginning of a text, so they make the tokens and the run's rule cuts them.
    whole = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    is_special = np.array(whole["special_tokens_mask"], np.bool_)
    pieces = encoder.cut(np.array(whole["input_ids"], np.int32), is_special)
    return [{"input_ids": torch.from_numpy(piece.astype(np.int64))[None]} for piece in pieces]
