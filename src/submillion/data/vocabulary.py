"""The tokens of a vocabulary that say little about their text.

A token is unknown if it does not show the base what was written. This is the token for everything unknown, such as
``[UNK]``, or, in vocabularies of bytes, some bytes of a character without its own token. A token is spelled if it is
one letter of an alphabet, since a base reads words in a script that it was not trained on letter by letter.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

UnknownKind = Literal["token", "bytes"]

# In these scripts one character is a syllable or a word.
_SYLLABIC = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL SYLLABLE", "YI SYLLABLE")
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
_MOSTLY = 0.5


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The unknown tokens and the single letters of a tokenizer.

    Attributes:
        unknown_kind: ``token`` if one token represents everything unknown; ``bytes`` if an unknown character becomes
            several tokens for its bytes.
        is_unknown: Whether a token is unknown, by token id; shape (V,), bool.
        is_letter: Whether a token is a single letter of an alphabet, by token id; shape (V,), bool. All are false for
            a tokenizer whose vocabulary consists of letters, which reads all texts that way.
    """

    unknown_kind: UnknownKind
    is_unknown: NDArray[np.bool_]
    is_letter: NDArray[np.bool_]


def read_vocabulary(tokenizer: str) -> Vocabulary:
    """Read the vocabulary of a tokenizer.

    Args:
        tokenizer: Content of the tokenizer's ``tokenizer.json``.
    """
    values = json.loads(tokenizer)
    model = values["model"]
    added = {token["content"]: int(token["id"]) for token in values.get("added_tokens") or []}
    listed: Any = model["vocab"]
    own = dict(listed) if isinstance(listed, Mapping) else {entry[0]: place for place, entry in enumerate(listed)}
    size = 1 + max([*own.values(), *added.values()], default=-1)
    is_unknown, is_letter = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    for place in _list_unknown(model, own | added):
        is_unknown[place] = True
    is_bytes = "ByteLevel" in set(_list_types(values.get("pre_tokenizer"))) | set(_list_types(values.get("decoder")))
    prefix = str(model.get("continuing_subword_prefix") or "")
    for token, place in own.items():
        if token in added:
            continue
        text: str | None = _decode(token) if is_bytes else token
        if text is None:
            is_unknown[place] = True
        elif len(text := _strip_marks(text, prefix)) == 1:
            is_letter[place] = _is_letter(text)
    if model.get("byte_fallback"):
        for byte in range(0x80, 0x100):
            if (token := f"<0x{byte:02X}>") in own:
                is_unknown[own[token]] = True
                is_bytes = True
    if is_letter.mean() > _MOSTLY:
        is_letter[:] = False
    return Vocabulary("bytes" if is_bytes else "token", is_unknown, is_letter)


def _list_unknown(model: Mapping[str, object], ids: Mapping[str, int]) -> list[int]:
    number, token = model.get("unk_id"), model.get("unk_token")
    if isinstance(number, int):
        return [number]
    return [ids[token]] if isinstance(token, str) and token in ids else []


def _list_types(part: Any) -> Iterator[str]:
    """Yield the types of a tokenizer's part and of the parts that it consists of."""
    if isinstance(part, Mapping):
        yield str(part.get("type"))
        for inner in part.values():
            yield from _list_types(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _list_types(inner)


def _list_byte_characters() -> dict[str, int]:
    """Return the character that represents each byte in vocabularies of bytes.

    Bytes that are visible characters of Latin-1 represent themselves. The others have the characters from 256 on.
    Source: A. Radford et al., "Language models are unsupervised multitask learners", 2019, as published with GPT-2.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _list_byte_characters()


def _decode(token: str) -> str | None:
    """Return the text of a token of bytes, or None if it holds a part of a character."""
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except UnicodeDecodeError:
        return None
    except KeyError:  # the token is listed as text
        return token


def _strip_marks(text: str, prefix: str) -> str:
    return text.removeprefix(prefix).strip(f" {_WORD_START}")


def _is_letter(character: str) -> bool:
    return character.isalpha() and not unicodedata.name(character, "").startswith(_SYLLABIC)
