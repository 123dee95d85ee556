"""The files of a base model: which ones make it whole, whether they are sound, and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from submillion.errors import ModelError, RunError
from submillion.files import explain_stray_link, read_json, read_plain, write_json
from submillion.private_folders import explain_distrust
from submillion.rundir import find_cache_folder

_TOKENIZERS = (
    {"tokenizer.json"},
    {"vocab.txt"},
    {"vocab.json", "merges.txt"},
    {"spm.model"},
    {"sentencepiece.bpe.model"},
    {"spiece.model"},
    {"tokenizer.model"},
)
TEXT_FILES = frozenset().union(*_TOKENIZERS) | {
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors.index.json",
}
_MAX_HEADER_BYTES = 100_000_000  # The limit of the format's reference reader.
_MAX_CONFIG_BYTES = 4 << 20
# Models are built from these numbers before a weight is read: larger ones would take all time or memory.
_MAX_SIZE = 20_000_000
_MAX_LAYERS = 1000
_LAYER_COUNTS = frozenset(
    {"inner_group_num", "n_layer", "n_layers", "num_hidden_groups", "num_hidden_layers", "num_layers"}
)
_STRAY_HINT = "A folder of a model must hold its files itself; copy the file there."
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


def list_weights(names: Collection[str]) -> list[str]:
    """Return model.safetensors, or all shards if none of them is missing."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    shards = {match.group(): match for name in names if (match := _SHARD.fullmatch(name))}
    is_whole = all(len(shards) == int(match.group(2)) for match in shards.values())
    return sorted(shards) if is_whole and "model.safetensors.index.json" in names else []


def name_missing_config(names: Collection[str]) -> str | None:
    """Say that the configuration is missing, or None if it is there."""
    return None if "config.json" in names else "no config.json"


def name_missing_part(names: Collection[str]) -> str | None:
    """Say what a folder lacks to be a base model, or None if nothing."""
    if "config.json" not in names:
        return "no config.json"
    if not list_weights(names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        return f"no model.safetensors, only the pickled {', '.join(pickled)}" if pickled else "no model.safetensors"
    if not any(needed.issubset(names) for needed in _TOKENIZERS):
        return "no tokenizer (tokenizer.json, vocab.txt, vocab.json with merges.txt, or a sentencepiece model)"
    return None


def explain_missing_part(
    place: str, lack: str, names: Collection[str], *, hidden_repo: str | None = None
) -> ModelError:
    """Return the error for a folder or repository that lacks a part.

    Args:
        place: The folder or hub id.
        lack: What `name_missing_part` said.
        names: Files that are there.
        hidden_repo: Hub id of a known base model whose name the folder bears.
    """
    if "pickled" in lack:
        hint = (
            "Pickled weights can run code and are never loaded. Convert them once in a place you trust "
            "(`save_pretrained` of transformers writes safetensors) and give that folder."
        )
    elif hidden_repo is not None:
        hint = f"This folder hides the known base model; give {hidden_repo} instead."
    else:
        hint = f"It holds {', '.join(sorted(names)[:8]) or 'nothing'}; give a folder with all parts."
    return ModelError(f"has {lack}", where=place, hint=hint)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a folder.

    Raises:
        ModelError: It is missing, cannot be read or is no configuration of a model.
    """
    path = folder / "config.json"
    stray = explain_stray_link(path)
    if stray:
        raise ModelError(stray, where=str(path), hint=_STRAY_HINT)
    try:
        # Links of the hub's cache are followed; what they lead to is an ordinary file.
        content = read_plain(path.resolve(), _MAX_CONFIG_BYTES)
    except FileNotFoundError:
        raise ModelError(
            "has no config.json", where=str(folder), hint="Give a folder written by `save_pretrained`."
        ) from None
    except RunError as error:
        raise ModelError(error.message, where=str(path)) from None
    return parse_config(content.decode("utf-8", errors="replace"), where=str(path))


def parse_config(text: str, *, where: str) -> dict[str, Any]:
    """Return the object that a config.json holds.

    Raises:
        ModelError: It is no JSON object or has no model_type.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"is no JSON: {error}", where=where, hint="Get the file again.") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError("names no model_type", where=where, hint="Is it the configuration of a transformers model?")
    for name, value in config.items():
        limit = _MAX_LAYERS if name in _LAYER_COUNTS else _MAX_SIZE
        if isinstance(value, int) and not -limit <= value <= limit:
            raise ModelError(
                f"{name} is {value!r:.40}, more than {limit:,}",
                where=where,
                hint="No model of this kind is that large; get the file again.",
            )
    return config


def check_safetensors(path: Path, *, hint: str) -> None:
    """Compare a file's size with what its header promises.

    Layout: 8 bytes little-endian length of a JSON header, the header, then the data; `data_offsets` count from the
    end of the header (https://github.com/huggingface/safetensors, "Format").

    Args:
        path: The file.
        hint: What to do about a damaged one.

    Raises:
        ModelError: The file is shorter or longer than that, or its header is damaged.
    """
    stray = explain_stray_link(path)
    if stray:
        raise ModelError(stray, where=str(path), hint=_STRAY_HINT)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_size)) if header_size <= min(size - 8, _MAX_HEADER_BYTES) else None
        entries = [value for key, value in header.items() if key != "__metadata__"] if header is not None else None
        whole = None if entries is None else 8 + header_size + max(int(entry["data_offsets"][1]) for entry in entries)
    except (
        OSError,
        struct.error,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        raise ModelError(f"is damaged: {error}", where=str(path), hint=hint) from None
    if whole != size:
        expected = "its header alone is longer" if whole is None else f"its header promises {whole:,}"
        raise ModelError(
            f"is damaged: {size:,} bytes, {expected}; the file was cut or altered",
            where=str(path),
            hint=hint,
        )


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file; remembered by path, size and change time, since weights are large.

    What is remembered is believed only where nobody else can have written it.
    """
    path = path.resolve()
    status = path.stat()
    key = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    memo = find_cache_folder() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    is_private = not explain_distrust(memo.parent)
    with contextlib.suppress(OSError, RunError):
        # Where others can write, even to open it may wait for ever: a pipe may lie there.
        remembered = read_json(memo) if is_private else {}
        if {name: remembered.get(name) for name in key} == key and isinstance(remembered.get("sha256"), str):
            return str(remembered["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Without a writable cache the next start digests again, which costs time and nothing else.
    with contextlib.suppress(OSError, RunError):
        write_json(memo, {**key, "sha256": digest})
    return digest
