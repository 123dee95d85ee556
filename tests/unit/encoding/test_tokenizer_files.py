"""Untrusted tokenizers: crafted ones end in a typed error at once, and published ones load unchanged."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from submillion.budget.families import FAMILIES
from submillion.encoding.tokenizer_files import load_tokenizer, read_settings, write_tokenizer
from submillion.errors import ModelError

Values = dict[str, Any]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_published_tokenizer_is_built_as_it_is(tiny_base: Callable[[str], Path], family: str) -> None:
    theirs = Tokenizer.from_file(str(tiny_base(family) / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    assert load_tokenizer(tiny_base(family)).to_str() == theirs.to_str()


def set_part(name: str, part: Any) -> Callable[[Values], None]:
    return lambda values: values.update({name: part})


def set_model(**entries: Any) -> Callable[[Values], None]:
    return lambda values: values["model"].update(entries)


def nest(depth: int) -> Values:
    part: Values = {"type": "Lowercase"}
    for _ in range(depth):
        part = {"type": "Sequence", "normalizers": [part]}
    return part


def double(times: int) -> Values:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [replace] * times}


def split_by(pattern: str) -> Values:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def add_token(content: str, number: int) -> Callable[[Values], None]:
    entry = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return lambda values: values["added_tokens"].append({**entry, "normalized": False, "special": True})


def put_specials(number: int) -> Values:
    return {"type": "BertProcessing", "sep": ["[SEP]", number], "cls": ["[CLS]", number]}


CRAFTED: dict[str, Callable[[Values], Any]] = {
    "catastrophic pattern": set_part("pre_tokenizer", split_by(r"(a+)+$")),
    "alternatives repeated": set_part("pre_tokenizer", split_by(r"(a|aa)*b")),
    "optional parts": set_part("pre_tokenizer", split_by("a?" * 40 + "a" * 40)),
    "no pattern": set_part("pre_tokenizer", split_by("(")),
    "doubling": set_part("normalizer", double(60)),
    "nested": set_part("normalizer", nest(200)),
    "many parts": set_part("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 100}),
    "unknown part": set_part("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    "part without a type": set_part("decoder", {"prefix": "##"}),
    "unk missing": set_model(unk_token="[NONE]"),
    "unk left out": lambda values: values["model"].pop("unk_token"),
    "huge id": lambda values: values["model"]["vocab"].update({"far": 4_000_000_000}),
    "negative id": lambda values: values["model"]["vocab"].update({"far": -1}),
    "text as id": lambda values: values["model"]["vocab"].update({"far": "1"}),
    "ids twice": lambda values: values["model"]["vocab"].update({"far": 0}),
    "no vocabulary": set_model(vocab={}),
    "vocabulary of another kind": set_model(vocab=[["a", 0.0]]),
    "unknown model": set_model(type="Code"),
    "long words": set_model(max_input_chars_per_word=10**9),
    "added far away": add_token("far", 4_000_000_000),
    "added empty": add_token("", 7),
    "specials without an id": set_part("post_processor", put_specials(10**9)),
    "unigram with NaN": set_part("model", {"type": "Unigram", "unk_id": 0, "vocab": [["a", float("nan")]]}),
    "unigram's unk out of range": set_part("model", {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}),
    "random merges": set_part("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}),
    "charsmap of noise": set_part("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "no model": lambda values: values.pop("model"),
}


@pytest.mark.parametrize("name", sorted(CRAFTED))
def test_a_crafted_tokenizer_is_refused_at_once(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    values = copy.deepcopy(json.loads((tiny_bert / "tokenizer.json").read_text()))
    CRAFTED[name](values)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    started = time.monotonic()
    with pytest.raises(ModelError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 200_000, b"\xff\xfe", b'{"model": 1e999}'])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_links_out_of_the_folder_and_pipes_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(tiny_bert / "tokenizer.json")
    with pytest.raises(ModelError, match="is a link to"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="not an ordinary file"):
        load_tokenizer(tmp_path)


def test_settings_name_no_code_and_add_no_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    settings = {"auto_map": {"AutoTokenizer": ["a.B", None]}, "tokenizer_class": "Evil", "do_lower_case": False}
    settings |= {"pad_token": {"content": "[PAD]"}, "mask_token": "[NOT THERE]", "tokenizer_file": "/etc/passwd"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    read = read_settings(tmp_path)
    assert read == {"pad_token": "[PAD]", "mask_token": "[NOT THERE]", "do_lower_case": False}
    write_tokenizer(tmp_path / "out", (tiny_bert / "tokenizer.json").read_text(), read, max_length=9)
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (written["pad_token"], written["mask_token"], written["model_max_length"]) == ("[PAD]", "[MASK]", 9)
    assert "auto_map" not in written
