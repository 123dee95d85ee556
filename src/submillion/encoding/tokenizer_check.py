"""Checks of a tokenizer.json, part by part, before the library that builds it reads a byte.

The library trusts its input. A damaged or crafted file can make it panic, write gigabytes, never end, or return token
ids without an embedding. So every part must be of a known type, sizes and ids must be within the vocabulary, patterns
must end in time, and nothing may grow without bound. Other faults can only cause ordinary errors in the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from submillion.budget.patterns import SlowPatternError, bound_ways
from submillion.storage.json_shapes import JsonObject, JsonView

MAX_BYTES = 64 << 20
_MAX_VOCABULARY = 2_000_000
_MAX_ADDED = 20_000
_MAX_TOKEN_CHARACTERS = 512
_MAX_PARTS = 32
_MAX_DEPTH = 4
_MAX_REPLACES = 8
_MAX_PIECES = 8
_MAX_WORD_CHARACTERS = 1000
# A pattern may match a text of this many characters in so many ways; published tokenizers have about ten million.
_PATTERN_LENGTH, _MAX_WAYS = 1000, 5e7
_MAX_CHARSMAP_CHARACTERS = 8 << 20
_NORMALIZERS = frozenset(
    [
        "BertNormalizer",
        "ByteLevel",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Replace",
        "Strip",
        "StripAccents",
    ]
)
_PRE_TOKENIZERS = frozenset(
    [
        "BertPreTokenizer",
        "ByteLevel",
        "CharDelimiterSplit",
        "Digits",
        "Metaspace",
        "Punctuation",
        "Split",
        "UnicodeScripts",
        "Whitespace",
        "WhitespaceSplit",
    ]
)
_POST_PROCESSORS = frozenset(["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"])
_DECODERS = frozenset(
    ["BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"]
)
_PARTS: dict[str, tuple[frozenset[str], str]] = {
    "normalizer": (_NORMALIZERS, "normalizers"),
    "pre_tokenizer": (_PRE_TOKENIZERS, "pretokenizers"),
    "post_processor": (_POST_PROCESSORS, "processors"),
    "decoder": (_DECODERS, "decoders"),
}


class UnsoundTokenizerError(ValueError):
    """A tokenizer.json that is refused; the message gives the reason as the end of a sentence."""


def check_tokenizer(values: object) -> JsonObject:
    """Return the content of a tokenizer.json, without truncation and padding, if it is safe to build.

    Args:
        values: Content of the JSON file.

    Raises:
        UnsoundTokenizerError: A part is unknown, or a size, an id or a pattern is out of bounds.
    """
    if not isinstance(values, dict):
        raise UnsoundTokenizerError(f"it holds a {type(values).__name__} instead of an object")
    model = values.get("model")
    if not isinstance(model, dict):
        raise UnsoundTokenizerError("it has no model")
    added = _check_added(values.get("added_tokens") or [])
    vocabulary = _check_model(model)
    tokens = vocabulary | added
    limit = 2 * len(tokens) + 1000
    largest = max(tokens.values(), default=-1)
    if largest >= limit:
        raise UnsoundTokenizerError(f"the id {largest:,} is far beyond its {len(tokens):,} tokens")
    parts = {name: _check_part(name, values.get(name)) for name in _PARTS}
    _check_specials(parts["post_processor"], set(tokens.values()))
    return {"version": "1.0", "added_tokens": values.get("added_tokens") or [], "model": model, **parts}


def _check_added(added: object) -> dict[str, int]:
    if not isinstance(added, list) or len(added) > _MAX_ADDED:
        raise UnsoundTokenizerError(f"added_tokens is not a list of at most {_MAX_ADDED:,} tokens")
    tokens: dict[str, int] = {}
    for entry in added:
        content, number = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        _require_token(content, number)
        if content == "":
            raise UnsoundTokenizerError("an added token is empty")
        tokens[str(content)] = int(number)  # type: ignore[arg-type]  # an int, as has just been required
    return tokens


def _require_token(token: object, number: object) -> None:
    if not isinstance(token, str) or len(token) > _MAX_TOKEN_CHARACTERS:
        raise UnsoundTokenizerError(f"{token!r:.80} is not a token of at most {_MAX_TOKEN_CHARACTERS} characters")
    if type(number) is not int or number < 0:
        raise UnsoundTokenizerError(f"the token {token!r:.80} has the id {number!r:.40}")


def _check_model(model: JsonObject) -> dict[str, int]:
    """Check the model, whose `type` may be missing in old files, and return its vocabulary."""
    kind = model.setdefault("type", _guess_kind(model))
    vocabulary: Any = model.get("vocab")
    if not _is_vocabulary(vocabulary, kind) or len(vocabulary) > _MAX_VOCABULARY:
        raise UnsoundTokenizerError(f"its vocabulary is not a {kind} vocabulary of at most {_MAX_VOCABULARY:,} tokens")
    tokens: dict[str, int]
    if kind == "Unigram":
        tokens = _check_unigram(model, vocabulary)
    elif kind in {"BPE", "WordPiece", "WordLevel"}:
        for token, number in vocabulary.items():
            _require_token(token, number)
        if len(set(vocabulary.values())) != len(vocabulary):
            raise UnsoundTokenizerError("two tokens have the same id")
        tokens = vocabulary
    else:
        raise UnsoundTokenizerError(f"models of type {kind!r:.80} are not known")
    if not tokens:
        raise UnsoundTokenizerError("its vocabulary is empty")
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in tokens:
        raise UnsoundTokenizerError(f"unk_token {unknown!r:.80} is not in its vocabulary")
    if kind in {"WordPiece", "WordLevel"} and unknown is None:
        raise UnsoundTokenizerError("it has no unk_token")
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 0 < longest <= _MAX_WORD_CHARACTERS:
        raise UnsoundTokenizerError(f"max_input_chars_per_word is {longest!r:.40}, more than {_MAX_WORD_CHARACTERS}")
    if model.get("dropout"):
        raise UnsoundTokenizerError("dropout makes its tokens random")
    return tokens


def _is_vocabulary(vocabulary: object, kind: object) -> bool:
    return isinstance(vocabulary, list if kind == "Unigram" else dict)


def _guess_kind(model: JsonView) -> str:
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _check_unigram(model: JsonView, vocabulary: list[object]) -> dict[str, int]:
    tokens = {}
    for number, entry in enumerate(vocabulary):
        token, score = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        _require_token(token, number)
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise UnsoundTokenizerError(f"the token {token!r:.80} has the score {score!r:.40}")
        tokens[str(token)] = number
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(vocabulary):
        raise UnsoundTokenizerError(f"unk_id is {unknown!r:.40}, of {len(vocabulary):,} tokens")
    return tokens


def _check_part(name: str, part: object) -> object:
    kinds, inner = _PARTS[name]
    leaves: list[JsonObject] = []
    _list_leaves(name, part, inner, leaves, 0)
    for leaf in leaves:
        kind = leaf["type"]
        if kind not in kinds:
            raise UnsoundTokenizerError(f"a {name} of type {kind!r:.80} is not known")
        check = _CHECKS.get(kind)
        if check is not None:
            check(leaf)
    if sum(leaf["type"] == "Replace" for leaf in leaves) > _MAX_REPLACES:
        raise UnsoundTokenizerError(f"its {name} replaces more than {_MAX_REPLACES} times")
    return part


def _list_leaves(name: str, part: object, inner: str, leaves: list[JsonObject], depth: int) -> None:
    if part is None and depth == 0:
        return
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise UnsoundTokenizerError(f"a part of its {name} has no type: {part!r:.80}")
    if part["type"] != "Sequence":
        leaves.append(part)
    elif depth == _MAX_DEPTH or not isinstance(part.get(inner), list):
        raise UnsoundTokenizerError(f"its {name} is nested too deeply, or a sequence of it has no {inner}")
    else:
        for item in part[inner]:
            _list_leaves(name, item, inner, leaves, depth + 1)
    if len(leaves) > _MAX_PARTS:
        raise UnsoundTokenizerError(f"its {name} has more than {_MAX_PARTS} parts")


def _check_pattern(part: JsonView) -> int:
    """Return the fewest characters that a part's pattern matches, and check a regular expression."""
    match part.get("pattern"):
        case {"String": str(text)} if text:
            return len(text)
        case {"Regex": str(pattern)}:
            try:
                ways = bound_ways(pattern, _PATTERN_LENGTH)
            except SlowPatternError as error:
                raise UnsoundTokenizerError(f"the pattern {pattern!r:.120} is not used: {error}") from None
            if ways > _MAX_WAYS:
                raise UnsoundTokenizerError(f"the pattern {pattern!r:.120} can match texts in too many ways")
            return 1
        case other:
            raise UnsoundTokenizerError(f"{other!r:.80} is not a pattern")


def _check_replace(part: JsonView) -> None:
    # Otherwise a chain of parts that each double a text would never end.
    taken = _check_pattern(part)
    content = part.get("content")
    if not isinstance(content, str) or len(content) > taken:
        raise UnsoundTokenizerError(f"a Replace gives {content!r:.80}, which is longer than its pattern")


def _check_prepend(part: JsonView) -> None:
    if not isinstance(part.get("prepend"), str) or len(part["prepend"]) > _MAX_PIECES:
        raise UnsoundTokenizerError(f"a Prepend gives {part.get('prepend')!r:.80}")


def _check_charsmap(part: JsonView) -> None:
    content = part.get("precompiled_charsmap")
    if not isinstance(content, str) or len(content) > _MAX_CHARSMAP_CHARACTERS:
        raise UnsoundTokenizerError("its precompiled_charsmap is not a text of a usual size")


def _check_template(part: JsonView) -> None:
    for name in ("single", "pair"):
        pieces = part.get(name)
        if not isinstance(pieces, list) or len(pieces) > _MAX_PIECES:
            raise UnsoundTokenizerError(f"its template {name} is not a list of at most {_MAX_PIECES} pieces")
    if sum("Sequence" in piece for piece in part["single"] if isinstance(piece, dict)) != 1:
        raise UnsoundTokenizerError("its template does not hold the text exactly once")


def _check_strip(part: JsonView) -> None:
    is_usual = all(type(part.get(side)) is int and 0 <= part[side] < _MAX_PIECES for side in ("start", "stop"))
    if not is_usual and "strip_left" not in part:
        raise UnsoundTokenizerError(f"a Strip takes {part!r:.80}")


_CHECKS: dict[str, Callable[[JsonView], object]] = {
    "Replace": _check_replace,
    "Split": _check_pattern,
    "Prepend": _check_prepend,
    "Precompiled": _check_charsmap,
    "TemplateProcessing": _check_template,
    "Strip": _check_strip,
}


def _check_specials(part: object, ids: set[int]) -> None:
    """Check that every special token that is added to a text has an id of the vocabulary."""
    leaves: list[JsonObject] = []
    _list_leaves("post_processor", part, "processors", leaves, 0)
    for leaf in leaves:
        found: list[object] = []
        if leaf["type"] == "TemplateProcessing":
            specials = leaf.get("special_tokens")
            entries = list(specials.values()) if isinstance(specials, dict) else [None]
            for entry in entries:
                numbers = entry.get("ids") if isinstance(entry, dict) else None
                found += numbers if isinstance(numbers, list) and len(numbers) <= _MAX_PIECES else [None]
        elif leaf["type"] in {"BertProcessing", "RobertaProcessing"}:
            found = [pair[1] if isinstance(pair, list) and len(pair) == 2 else None for pair in _read_pairs(leaf)]
        strange = [number for number in found if type(number) is not int or number not in ids]
        if strange:
            raise UnsoundTokenizerError(f"its {leaf['type']} adds the id {strange[0]!r:.40}, which no token has")


def _read_pairs(leaf: JsonView) -> list[object]:
    return [leaf.get("sep"), leaf.get("cls")]
