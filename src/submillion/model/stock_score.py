"""Scoring of exported folders with only the stock libraries, padded, as a user of the folder would do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.config.run import ModelConfig
from submillion.encoding.text_encoder import TextEncoder
from submillion.model.adapter import wrap_saved_adapter
from submillion.model.base_files import read_safetensors
from submillion.model.stock import load_stock_model, quiet_loading, read_stock_config
from submillion.model.stock_inputs import list_inputs
from submillion.model.untyped import Stock

HEAD_NAME = "head.safetensors"


def score_merged_folder(
    folder: Path, texts: Sequence[str], *, pooling: str | None, reads: ModelConfig
) -> NDArray[np.float32]:
    """Return the logits of a merged folder that this process has written, shape (n, C).

    Args:
        folder: The merged folder.
        texts: Texts to score, one by one.
        pooling: Name of the state that the linear head beside the encoder reads; None if the folder is a classifier.
        reads: Settings for the part of a text that is read.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    kind: Stock = AutoModelForSequenceClassification if pooling is None else AutoModel
    with quiet_loading():
        model = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32)
    return _score(model, folder, texts, pooling=pooling, reads=reads)


def score_adapter_folder(
    folder: Path, texts: Sequence[str], *, base: Path, num_labels: int, pooling: str | None, reads: ModelConfig
) -> NDArray[np.float32]:
    """Return the logits of a base with an adapter folder that this process has written, shape (n, C).

    Args:
        folder: The adapter's folder, with the tokenizer.
        texts: Texts to score, one by one.
        base: The base model's folder.
        num_labels: Number of classes C.
        pooling: Name of the state that the linear head beside the adapter reads; None if the adapter holds the head.
        reads: Settings for the part of a text that is read.
    """
    config = read_stock_config(base)
    if pooling is None:
        config.num_labels = num_labels
    task: Stock = "classifier" if pooling is None else "encoder"
    model = wrap_saved_adapter(load_stock_model(base, task, config=config, attention="eager").model, folder)
    return _score(model, folder, texts, pooling=pooling, reads=reads)


def _score(
    model: Stock, folder: Path, texts: Sequence[str], *, pooling: str | None, reads: ModelConfig
) -> NDArray[np.float32]:
    from transformers import AutoTokenizer

    tokenizer: Stock = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    head = {} if pooling is None else read_safetensors(folder / HEAD_NAME)
    model.eval()
    encoder = TextEncoder(folder, reads.num_tokens_kept, reads.long_texts)
    rows = []
    with torch.inference_mode():
        for text in texts:
            pieces = []
            for inputs in list_inputs(tokenizer, text, encoder):
                output = model(**inputs)
                if pooling is None:
                    pieces.append(output.logits[0])
                    continue
                states = output.last_hidden_state[0]
                state = states.mean(0) if pooling == "mean" else states[0]
                pieces.append(head["head.weight"] @ state + head["head.bias"])
            rows.append(torch.stack(pieces).mean(0))
    logits: NDArray[np.float32] = torch.stack(rows).float().numpy()
    return logits
