"""Tokens without meaning for a base, by the kind of its vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from submillion.data.vocabulary import Vocabulary, read_vocabulary

Base = Callable[[str], Path]


def count(tokenizer: Tokenizer, text: str) -> tuple[int, int, int]:
    """Return how many tokens a text has, how many are unknown, and how many are single letters."""
    ids = tokenizer.encode(text).ids
    vocabulary = read_vocabulary(tokenizer.to_str())
    return len(ids), int(vocabulary.is_unknown[ids].sum()), int(vocabulary.is_letter[ids].sum())


def read(folder: Path) -> tuple[Tokenizer, Vocabulary]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    return tokenizer, read_vocabulary(tokenizer.to_str())


def test_word_pieces_have_one_unknown_token(tiny_base: Base) -> None:
    tokenizer, vocabulary = read(tiny_base("bert"))
    assert vocabulary.unknown_kind == "token"
    assert np.flatnonzero(vocabulary.is_unknown).tolist() == [tokenizer.token_to_id("[UNK]")]
    assert count(tokenizer, "the 天 river 地") == (4, 2, 0)
    # Letters count with their prefix and without it; digits and marks do not.
    assert count(tokenizer, "zq 7 !")[2] == 2


def test_vocabularies_of_bytes_know_no_part_of_a_character(tiny_base: Base) -> None:
    tokenizer, vocabulary = read(tiny_base("roberta"))
    assert vocabulary.unknown_kind == "bytes"
    assert count(tokenizer, "the river")[1] == 0
    assert count(tokenizer, "天") == (3, 3, 0)
    assert count(tokenizer, "the é")[:2] == (count(tokenizer, "the ")[0] + 2, 2)
    assert not vocabulary.is_unknown[tokenizer.token_to_id("<s>")]


def test_whole_characters_of_several_bytes_are_known() -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    ids = {character: place for place, character in enumerate(sorted(alphabet))}
    ids |= {"Ã©": 256, "Ġa": 257}  # é as it is spelled in bytes, and a word of one letter
    tokenizer = Tokenizer(models.BPE(ids, [("Ã", "©"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert tokenizer.encode("é").ids == [256]
    assert count(tokenizer, "é") == (1, 0, 1)
    assert count(tokenizer, "ü") == (2, 2, 0)


def test_unigrams_have_an_unknown_piece_by_its_place() -> None:
    pieces = [("<s>", 0.0), ("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("и", -3.0), ("天", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert count(tokenizer, "the и") == (3, 0, 1)  # a syllabic character is no letter of an alphabet
    assert count(tokenizer, "天") == (2, 0, 0)
    assert count(tokenizer, "地")[1] == 1


def test_bytes_that_a_vocabulary_falls_back_to_are_unknown() -> None:
    bytes_of = {f"<0x{byte:02X}>": byte for byte in range(256)}
    ids = {**bytes_of, "<unk>": 256, "the": 257, "t": 258, "h": 259, "e": 260, "th": 261}
    model = models.BPE(ids, [("t", "h"), ("th", "e")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    assert read_vocabulary(tokenizer.to_str()).unknown_kind == "bytes"
    assert count(tokenizer, "the") == (1, 0, 0)
    assert count(tokenizer, "天") == (3, 3, 0)
    assert count(tokenizer, "\n") == (1, 0, 0)


def test_a_tokenizer_of_letters_spells_nothing() -> None:
    ids = {"[UNK]": 0, **{letter: place for place, letter in enumerate("abcdefgh", 1)}}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    assert count(tokenizer, "Bad") == (3, 0, 0)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_tables_have_a_place_for_every_token(tiny_base: Base, family: str) -> None:
    tokenizer, vocabulary = read(tiny_base(family))
    assert len(vocabulary.is_unknown) == len(vocabulary.is_letter) == max(tokenizer.get_vocab().values()) + 1
