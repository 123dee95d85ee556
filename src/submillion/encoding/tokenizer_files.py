"""Tokenizers from the files of a folder, built without running, fetching or opening anything that the files name.

A tokenizer.json is checked and built by the tokenizers library. The family's class in transformers converts older
formats, on copies of the vocabulary files beside settings that we write.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

from submillion.budget.families import FAMILIES
from submillion.encoding.tokenizer_check import MAX_BYTES, UnsoundTokenizerError, check_tokenizer
from submillion.errors import ModelError
from submillion.storage.files import explain_stray_link, write_json, write_text

TOKENIZER_NAME = "tokenizer.json"
_SETTINGS_NAME = "tokenizer_config.json"
_HINT = "The folder needs a tokenizer.json, or the vocabulary files of its family."
_WORDPIECE = ("vocab.txt",)
_BPE = ("vocab.json", "merges.txt")
_PIECES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_VOCABULARIES: dict[str, tuple[str, ...]] = {
    "BertTokenizer": _WORDPIECE,
    "MPNetTokenizer": _WORDPIECE,
    "RobertaTokenizer": _BPE,
    "GPT2Tokenizer": _BPE,
}
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_USUAL_SPECIALS = {
    "unk_token": ("[UNK]", "<unk>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# These settings change how a text is read. All others in tokenizer_config.json are left out, above all `auto_map`.
_FLAGS = (
    "add_prefix_space",
    "do_lower_case",
    "keep_accents",
    "lowercase",
    "split_by_punct",
    "strip_accents",
    "tokenize_chinese_chars",
)
_PROBES = ("", "a", "The 3rd of May, 2001: naïve café — 漢字 \u200d\U0001f600!", "x" * 300 + " y" * 300)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a tokenizer from a folder's ``tokenizer.json``, or convert the vocabulary files of its family.

    Args:
        folder: Folder of the files; for a conversion, config.json names the family.

    Raises:
        ModelError: Neither works, or a file is refused.
    """
    path = folder / TOKENIZER_NAME
    return build_tokenizer(read_small_file(path), where=path) if path.exists() else _convert(folder)


def build_tokenizer(content: bytes, *, where: Path) -> Tokenizer:
    """Build a tokenizer from the bytes of a tokenizer.json, and try it.

    Args:
        content: Content of the file.
        where: Path of the file, for messages.

    Raises:
        ModelError: The file is damaged, has unknown parts, or cannot encode.
    """
    try:
        values = check_tokenizer(json.loads(content))
        tokenizer = Tokenizer.from_str(json.dumps(values))
        for probe in _PROBES:
            tokenizer.encode(probe)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except UnsoundTokenizerError as error:
        raise _refuse(where, str(error)) from None
    except BaseException as error:
        # The library raises plain Exception for every fault of a file, and its panics are not Exceptions at all.
        raise _refuse(where, str(error) or type(error).__name__) from None
    return tokenizer


def _refuse(where: Path, problem: str) -> ModelError:
    return ModelError(f"no tokenizer can be loaded: {problem:.300}", where=str(where), hint=_HINT)


def read_small_file(path: Path) -> bytes:
    """Read a file of a tokenizer.

    Raises:
        ModelError: The path is not an ordinary file, leads out of its folder, is unreadable or is too large.
    """
    try:
        stray = explain_stray_link(path)
        if stray or not path.is_file():
            raise _refuse(path, f"it {stray}" if stray else "it is not an ordinary file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _refuse(path, f"it has {size:,} bytes, more than the limit of {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise _refuse(path, error.strerror or str(error)) from None


def read_settings(folder: Path) -> dict[str, str | bool]:
    """Return the settings in tokenizer_config.json and special_tokens_map.json that change how a text is read.

    Args:
        folder: Folder of the files; each may be missing.

    Returns:
        Special tokens as text, and flags.

    Raises:
        ModelError: A file is damaged.
    """
    found: dict[str, str | bool] = {}
    for name in ("special_tokens_map.json", _SETTINGS_NAME):
        path = folder / name
        if not path.exists():
            continue
        try:
            values = json.loads(read_small_file(path))
        except (ValueError, RecursionError) as error:
            raise _refuse(path, f"it is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise _refuse(path, "it holds no settings")
        for key in SPECIAL_NAMES:
            token = values.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and 0 < len(token) < 256:
                found[key] = token
        found |= {key: values[key] for key in _FLAGS if isinstance(values.get(key), bool)}
    return found


def write_tokenizer(
    folder: Path, content: str, settings: dict[str, str | bool], *, max_length: int | None = None
) -> None:
    """Write a tokenizer so that stock libraries load it unchanged, with our settings beside it.

    Args:
        folder: Folder for the files.
        content: Content of the tokenizer.json.
        settings: Settings that `read_settings` returned for the original folder; flags for conversions are left out.
        max_length: Number of tokens at which stock libraries cut a text; None for no limit.

    Raises:
        RunError: The disk is full.
    """
    tokenizer = build_tokenizer(content.encode(), where=folder / TOKENIZER_NAME)
    # A special token that the vocabulary lacks would be added to it with an id without an embedding.
    specials = {name: str(settings[name]) for name in SPECIAL_NAMES if name in settings}
    specials = {name: token for name, token in specials.items() if tokenizer.token_to_id(token) is not None}
    for name, spellings in _USUAL_SPECIALS.items():
        known = [spelling for spelling in spellings if tokenizer.token_to_id(spelling) is not None]
        if name not in specials and known:
            specials[name] = known[0]
    # Token types are left out: models then use zeros, and some families refuse them.
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    limit = {} if max_length is None else {"model_max_length": max_length}
    write_text(folder / TOKENIZER_NAME, content)
    write_json(folder / _SETTINGS_NAME, {**values, **specials, **limit})


def _convert(folder: Path) -> Tokenizer:
    family = _read_family(folder)
    known = FAMILIES.get(family or "")
    name = "GPT2Tokenizer" if family == "gpt2" else known.tokenizer if known else None
    if name is None:
        raise _refuse(folder, f"there is no {TOKENIZER_NAME}, and no conversion for models of type {family!r:.80}")
    wanted = _VOCABULARIES.get(name, _PIECES)
    present = [file for file in wanted if (folder / file).exists()]
    if not present or (wanted is _BPE and present != list(wanted)):
        raise _refuse(folder, f"there is neither {TOKENIZER_NAME} nor {' with '.join(wanted)}")
    import transformers

    try:
        with tempfile.TemporaryDirectory() as scratch:
            for file in present:
                Path(scratch, file).write_bytes(read_small_file(folder / file))
            if name == "DebertaV2Tokenizer" and present[0] != "spm.model":
                shutil.copyfile(Path(scratch, present[0]), Path(scratch, "spm.model"))
            settings = {"tokenizer_class": name, **read_settings(folder)}
            Path(scratch, _SETTINGS_NAME).write_text(json.dumps(settings), encoding="utf-8")
            fast = getattr(transformers, name).from_pretrained(scratch, local_files_only=True)
            content: str = fast.backend_tokenizer.to_str()
    except ModelError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise _refuse(folder, str(error) or type(error).__name__) from None
    return build_tokenizer(content.encode(), where=folder)


def _read_family(folder: Path) -> str | None:
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        values = json.loads(read_small_file(path))
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"it is not JSON: {error}") from None
    family = values.get("model_type") if isinstance(values, dict) else None
    return family if isinstance(family, str) else None
