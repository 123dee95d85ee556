from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from submillion.config.run import LongTexts
from submillion.encoding import text_encoder
from submillion.encoding.text_encoder import TextEncoder, hash_id, started_beside
from submillion.errors import ModelError
from submillion.records import Record

Base = Callable[[str], Path]

TEXTS = ["the river met", "", "a striker of nineteen scored twice", "the bank raised its rate to 4.5%" * 6, "é ß"] * 4


def encode_singly(folder: Path, texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [tokenizer.encode(text).ids for text in texts]


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("chunk", [3, 2048])
def test_texts_are_encoded_alike_alone_and_in_chunks(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch, family: str, chunk: int
) -> None:
    monkeypatch.setattr(text_encoder, "_CHUNK_TEXTS", chunk)
    folder = tiny_base(family)
    seen: list[int] = []
    tokens = TextEncoder(folder, 512).tokenise(TEXTS, seen.append)
    expected = encode_singly(folder, TEXTS)
    parts = np.split(tokens.input_ids, tokens.offsets[1:-1])
    assert [part.tolist() for part in parts] == expected
    assert tokens.counts.lengths.tolist() == [len(ids) for ids in expected]
    assert seen[-1] == len(TEXTS)
    assert seen == sorted(seen)
    assert TextEncoder(folder, 512).count_tokens(TEXTS).lengths.tolist() == tokens.counts.lengths.tolist()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_long_texts_keep_their_special_tokens_and_are_counted(tiny_base: Base, family: str) -> None:
    folder = tiny_base(family)
    records = [Record(f"r{row}", (text,), row % 3) for row, text in enumerate(TEXTS)]
    features = TextEncoder(folder, 12).encode(records)
    for record, item, whole in zip(records, features, encode_singly(folder, TEXTS), strict=True):
        assert (item.id, item.label, item.key) == (record.id, record.label, hash_id(record.id))
        assert item.truncated == (len(whole) > 12)
        assert item.input_ids.tolist() == (whole if len(whole) <= 12 else [*whole[:11], whole[-1]])
    assert sum(item.truncated for item in features) >= 4


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_head_and_tail_are_the_first_quarter_and_the_end(tiny_base: Base, family: str) -> None:
    folder = tiny_base(family)
    features = TextEncoder(folder, 14, "head_tail").encode([Record(str(n), (text,)) for n, text in enumerate(TEXTS)])
    for item, whole in zip(features, encode_singly(folder, TEXTS), strict=True):
        assert item.chunks == ()
        assert item.truncated == (len(whole) > 14)
        kept = whole if len(whole) <= 14 else [*whole[:4], *whole[-10:]]
        assert item.input_ids.tolist() == kept


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("chunk", [3, 2048])
def test_chunks_hold_the_whole_text_and_all_special_tokens_each(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch, family: str, chunk: int
) -> None:
    monkeypatch.setattr(text_encoder, "_CHUNK_TEXTS", chunk)
    folder = tiny_base(family)
    records = [Record(f"r{row}", (text,), row % 3) for row, text in enumerate(TEXTS)]
    features = TextEncoder(folder, 12, "chunks").encode(records)
    for record, item, whole in zip(records, features, encode_singly(folder, TEXTS), strict=True):
        assert (item.id, item.label, item.truncated) == (record.id, record.label, False)
        pieces = [piece.tolist() for piece in item.chunks or (item.input_ids,)]
        assert item.input_ids.tolist() == pieces[0]
        assert (len(pieces) > 1) == (len(whole) > 12) == bool(item.chunks)
        assert all(len(piece) <= 12 and (piece[0], piece[-1]) == (whole[0], whole[-1]) for piece in pieces)
        assert [token for piece in pieces for token in piece[1:-1]] == whole[1:-1]


@pytest.mark.parametrize("rule", ["head", "head_tail", "chunks"])
def test_what_is_counted_is_the_whole_text_whatever_is_read_of_it(tiny_base: Base, rule: LongTexts) -> None:
    texts = ["the \u5929 river " * 9 + "\u5730", "", "q", "the river"]
    counts = TextEncoder(tiny_base("bert"), 8, rule).tokenise(texts).counts
    assert counts.lengths.tolist() == [30, 2, 3, 4]
    assert counts.unknown.tolist() == [10, 0, 0, 0]
    assert counts.spelled.tolist() == [0, 0, 1, 0]
    apart = TextEncoder(tiny_base("bert"), 8).count_tokens(texts)
    assert (apart.lengths.tolist(), apart.unknown.tolist()) == (counts.lengths.tolist(), counts.unknown.tolist())


def test_nothing_is_encoded_from_nothing(tiny_base: Base) -> None:
    encoder = TextEncoder(tiny_base("bert"), 16)
    assert encoder.encode([]) == []
    assert encoder.count_tokens([]).lengths.tolist() == []
    assert encoder.tokenise([]).offsets.tolist() == [0]


def test_truncation_and_padding_of_a_published_tokenizer_are_off(tiny_base: Base, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_base("bert") / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path, 16)
    assert [len(item) for item in encoder.encode([Record("a", ("the",)), Record("b", ("the " * 40,))])] == [3, 16]
    assert Tokenizer.from_str(encoder.to_json()).truncation is None


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="no tokenizer can be loaded"):
        TextEncoder(tmp_path, 16)


def test_keys_of_ids_are_the_same_in_every_process() -> None:
    assert hash_id("7") == int.from_bytes(hashlib.blake2b(b"7", digest_size=8).digest(), "little")
    assert len({hash_id(str(number)) for number in range(10_000)}) == 10_000


def test_jobs_beside_give_their_results_and_their_errors() -> None:
    def fail(_: Callable[[int], None]) -> int:
        raise ModelError("broken")

    with started_beside({"one": lambda _: 1, "bad": fail, "two": lambda _: 2}) as wait_for:
        assert wait_for["two"]() == 2
        assert wait_for["one"]() == 1
        with pytest.raises(ModelError, match="broken"):
            wait_for["bad"]()


def test_a_job_beside_ends_when_its_block_is_left() -> None:
    chunks: list[int] = []

    def go_on_for_long(on_progress: Callable[[int], None]) -> None:
        for chunk in range(10_000_000):
            chunks.append(chunk)
            on_progress(chunk)

    def leave_early() -> None:
        with started_beside({"long": go_on_for_long, "next": go_on_for_long}):
            while not chunks:
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_early()
    assert len(chunks) < 10_000_000


def test_encoding_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import submillion.encoding.text_encoder, sys; "
        "print(*(n for n in ('torch', 'transformers') if n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []


@pytest.mark.parametrize("num_texts", [3, 5000])
def test_a_tokenizer_that_fails_on_a_text_is_a_model_error(tiny_bert: Path, num_texts: int) -> None:
    class Panic(BaseException):
        """As the library raises it: no Exception."""

    class Failing:
        def encode_batch_fast(self, _: list[str]) -> None:
            raise Panic("index out of bounds")

    encoder = TextEncoder(tiny_bert, 32)
    encoder._tokenizer = Failing()  # type: ignore[assignment]  # it fails in the place of a tokenizer
    with pytest.raises(ModelError, match="index out of bounds"):
        encoder.tokenise(["rain"] * num_texts)
