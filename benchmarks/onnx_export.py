"""Export of the merged stock model to ONNX files, for the peer that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

INPUT_NAMES = ("input_ids", "attention_mask")


class _Logits(torch.nn.Module):
    """A classifier as a function of two tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def find_export(folder: Path, precision: str) -> Path:
    """Return the file of a precision, ``fp32`` or ``int8``."""
    return folder / f"{precision}.onnx"


def export_onnx(merged: Path, folder: Path) -> None:
    """Export a stock classifier, and quantise its weights to 8 bits with one scale per channel (dynamic quantisation).

    Args:
        merged: Folder of the classifier.
        folder: Folder for the files.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(merged)
    # There are two tensors, one with padding: the exporter merges equal inputs, and turns a full mask into a constant.
    example = torch.full((2, 16), 5), torch.ones(2, 16, dtype=torch.int64).tril(12)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    target = find_export(folder, "fp32")
    torch.onnx.export(
        _Logits(model).eval(),
        example,
        str(target),
        input_names=list(INPUT_NAMES),
        output_names=["logits"],
        dynamic_shapes=tuple({0: rows, 1: tokens} for _ in INPUT_NAMES),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    # The exporter's record of inner shapes contradicts the quantiser's.
    exported = onnx.load(target)
    del exported.graph.value_info[:]
    onnx.save(exported, target)
    quantize_dynamic(target, find_export(folder, "int8"), weight_type=QuantType.QInt8, per_channel=True)
