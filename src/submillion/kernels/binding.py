"""The kernels' C interface for ctypes: structures, argument types and functions by name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch

from submillion.kernels.native import find_kernels

_Pointer = ctypes.c_void_p
_Long = ctypes.c_int64
_Float = ctypes.c_float


class LowRankStruct(ctypes.Structure):
    """`SubmillionLowRank` of kernels.cpp."""

    _fields_ = (
        ("low", _Pointer),
        ("stride", _Long),
        ("packed", _Pointer),
        ("words", _Long),
        ("begin", _Pointer),
        ("end", _Pointer),
    )


class NormStruct(ctypes.Structure):
    """`SubmillionNorm` of kernels.cpp."""

    _fields_ = (
        ("residual", _Pointer),
        ("weight", _Pointer),
        ("bias", _Pointer),
        ("epsilon", _Float),
        ("normalised", _Pointer),
        ("inverse_deviations", _Pointer),
        ("out", _Pointer),
        ("row_keys", _Pointer),
        ("pair_keys", _Pointer),
        ("probability", _Float),
    )


class Int8Struct(ctypes.Structure):
    """`SubmillionInt8` of kernels.cpp."""

    _fields_ = (("packed", _Pointer), ("inner", _Long), ("columns", _Long), ("scales", _Pointer), ("sums", _Pointer))


class AttentionStruct(ctypes.Structure):
    """`SubmillionAttention` of kernels.cpp."""

    _fields_ = (
        ("qkv", _Pointer),
        ("num_heads", _Long),
        ("head_size", _Long),
        ("scaling", _Float),
        ("offsets", _Pointer),
        ("num_records", _Long),
        ("num_tokens", _Long),
        ("maxima", _Pointer),
        ("inverses", _Pointer),
        ("row_keys", _Pointer),
        ("pair_keys", _Pointer),
        ("max_pairs", _Long),
        ("probability", _Float),
        ("bias", _Pointer),
        ("bias_stride", _Long),
        ("bias_centre", _Long),
    )


_SIGNATURES: dict[str, tuple[type, ...]] = {
    "pack_bf16": (_Pointer, _Long, _Long, _Long, _Long, _Pointer),
    "pack_float": (_Pointer, _Long, _Long, _Long, _Long, _Float, _Pointer),
    "pack_int8": (_Pointer, _Long, _Long, _Pointer),
    "linear": (_Pointer, _Long, _Long, _Long, _Pointer, _Long, _Pointer, _Pointer, _Pointer, _Pointer, _Long),
    "linear_gelu": (_Pointer, _Long, _Long, _Pointer, _Long, _Pointer, _Pointer, _Pointer, _Pointer),
    "linear_times": (_Pointer, _Long, _Long, _Pointer, _Long, _Pointer, _Pointer, _Pointer),
    "linear_norm": (_Pointer, _Long, _Long, _Pointer, _Long, _Pointer, _Pointer, _Pointer),
    "int8_linear": (_Pointer, _Long, _Pointer, _Pointer, _Pointer),
    "int8_ffn_norm": (_Pointer, _Long, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer),
    "int8_linear_norm": (_Pointer, _Long, _Pointer, _Pointer, _Pointer),
    "ffn_norm": (
        *(_Pointer, _Long, _Long, _Pointer, _Long, _Pointer),
        *(_Pointer, _Pointer, _Pointer, _Pointer, _Pointer),
    ),
    "ffn_backward": (_Pointer, _Long, _Long, _Pointer, _Long, _Pointer, _Pointer, _Pointer, _Pointer),
    "norm_backward": (
        *(_Pointer, _Long, _Long, _Pointer, _Pointer, _Pointer),
        *(_Pointer, _Pointer, _Pointer, _Pointer, _Float),
    ),
    "embed": (_Pointer, _Pointer, _Long, _Long, _Pointer, _Pointer, _Pointer),
    "drop": (_Pointer, _Long, _Long, _Pointer, _Pointer, _Float, ctypes.c_int32, _Pointer),
    "outer": (_Pointer, _Long, _Long, _Pointer, _Long, _Long, _Long, _Float, ctypes.c_int32, _Pointer, _Pointer),
    "attention": (_Pointer, _Pointer),
    "attention_backward": (_Pointer, _Pointer, _Pointer, _Pointer),
}


@cache
def functions() -> dict[str, Callable[..., None]]:
    """Return the kernels by name, without their common prefix. Call it only if `find_kernels` has found them."""
    library = find_kernels().library
    assert library is not None, "no kernels: find_kernels().reason says why"
    functions: dict[str, Callable[..., None]] = {}
    for name, arguments in _SIGNATURES.items():
        function = library[f"submillion_{name}"]
        function.argtypes, function.restype = arguments, None
        functions[name] = function
    return functions


def address_of(tensor: torch.Tensor | None) -> int | None:
    """Return the address of a tensor's data, or a null pointer."""
    return None if tensor is None else tensor.data_ptr()


def reference_to(struct: ctypes.Structure | None) -> object:
    """Return a structure as an argument, or a null pointer."""
    return None if struct is None else ctypes.byref(struct)
