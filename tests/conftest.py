"""Fixtures that every test may use: a closed environment, tiny random base models and small news files."""

from __future__ import annotations

import csv
import itertools
import os
import re
import shutil
import signal
import socket
import string
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Read when torch and huggingface_hub are imported, so it is set before any test module is.
_CACHES = Path(tempfile.mkdtemp(prefix="submillion-tests-"))
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=str(_CACHES / "huggingface"),
    XDG_CACHE_HOME=str(_CACHES),
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    NO_COLOR="1",
)
for _variable in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(_variable, None)

# A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHES, ignore_errors=True)


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection of this process that would leave the machine."""
    connect = socket.socket.connect

    def connect_loopback(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
            raise OSError(f"a test tried to connect to {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_loopback)


@pytest.fixture
def hub() -> Iterator[Any]:
    """Yield an empty hub on loopback; give its `url` to a subprocess as HF_ENDPOINT, with HF_HUB_OFFLINE=0."""
    from tests.integration.hub_server import HubServer

    with HubServer() as server:
        yield server


# ---------------------------------------------------------------------------------------------- tiny base models

_SENTENCES = (
    "The river council met at dawn to settle the quarrel over the northern bridge.",
    "A striker of nineteen scored twice before the break and the visitors never recovered.",
    "Shares of the ferry company fell sharply after it warned of a second weak quarter.",
    "Engineers have taught a small robot to fold shirts by watching people for an hour.",
    "Farmers in the valley sold their last wheat of the season at a price nobody expected.",
    "The telescope found water vapour around a planet that circles a faint red star.",
    "Voters queued in the rain; the result, 51 to 49, was announced shortly before midnight.",
    "The bank raised its rate to 4.5% and said that it would wait for the summer figures.",
    'Her coach said: "She ran the last lap as if it were the first," and he meant it.',
    "New rules let shops keep the records of their customers for no longer than 90 days.",
)


@dataclass(frozen=True)
class _TinyModel:
    """A random model in the form in which the family's checkpoints are published.

    Most are masked language models without a pooler; bert's is a bare encoder with a pooler, as MiniLM's, and albert's
    has one too.
    """

    settings: dict[str, Any]
    kind: str = "AutoModelForMaskedLM"
    is_byte_level: bool = False
    has_roberta_tokens: bool = False


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_COMMON = {**_SIZES, "initializer_range": 0.3, "max_position_embeddings": 64}
# Positions count from that of padding, which is 1.
_FROM_PADDING = {**_COMMON, "max_position_embeddings": 66}
_ROBERTA = _TinyModel(
    {**_FROM_PADDING, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, is_byte_level=True, has_roberta_tokens=True
)
_TINY_MODELS = {
    # Two groups of layers, and each computes twice.
    "albert": _TinyModel(
        {**_COMMON, "num_hidden_layers": 4, "num_hidden_groups": 2, "embedding_size": 16},
        kind="AutoModelForPreTraining",
    ),
    "bert": _TinyModel(_COMMON, kind="AutoModel"),
    "camembert": _ROBERTA,
    "deberta-v2": _TinyModel(
        # The settings of DeBERTa-v3: disentangled attention with shared keys and log buckets, no absolute positions.
        {
            **_COMMON,
            "relative_attention": True,
            "position_buckets": 16,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        }
    ),
    "distilbert": _TinyModel(
        {
            **{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
            **{"initializer_range": 0.3, "max_position_embeddings": 64},
        }
    ),
    "electra": _TinyModel({**_COMMON, "embedding_size": 32}, kind="AutoModelForPreTraining"),
    "modernbert": _TinyModel(
        {**_COMMON, "local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3},
        is_byte_level=True,
    ),
    "mpnet": _TinyModel(_FROM_PADDING, has_roberta_tokens=True),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def _make_tokenizer(tiny: _TinyModel) -> Any:
    """Return a small fast tokenizer with the special tokens and the template that the family uses."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if tiny.has_roberta_tokens:
        specials = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
        specials |= {"bos": "<s>", "eos": "</s>"}
    else:
        specials = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = list(dict.fromkeys(specials.values()))
    tokenizer: Any
    if tiny.is_byte_level:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=360, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(_SENTENCES, trainer)
    else:
        # Listed, not trained: the trainer of WordPiece breaks ties differently in every process.
        words = sorted({word for sentence in _SENTENCES for word in re.findall(r"[a-z]+|\S", sentence.lower())})
        pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation]
        vocabulary = dict.fromkeys([*tokens, *pieces, *(f"##{piece}" for piece in pieces[:36]), *words])
        ids = {token: number for number, token in enumerate(vocabulary)}
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token=specials["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    first, last = ((specials[name], tokenizer.token_to_id(specials[name])) for name in ("cls", "sep"))
    tokenizer.post_processor = (
        processors.RobertaProcessing(last, first)
        if tiny.has_roberta_tokens
        else processors.TemplateProcessing(
            single=f"{first[0]} $A {last[0]}",
            pair=f"{first[0]} $A {last[0]} $B:1 {last[0]}:1",
            special_tokens=[first, last],
        )
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{f"{name}_token": token for name, token in specials.items()},
    )


def _build_tiny_base(family: str, folder: Path) -> Path:
    import torch
    import transformers

    tiny = _TINY_MODELS[family]
    tokenizer = _make_tokenizer(tiny)
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if tiny.is_byte_level:
        ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    config = transformers.AutoConfig.for_model(family, **tiny.settings, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = getattr(transformers, tiny.kind).from_config(config)
        with torch.no_grad():
            # Fresh biases are zero and fresh norms one, which would hide a lost or doubled one.
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def build_tiny_base() -> Callable[[str, Path], Path]:
    """Return `build(family, folder) -> folder`: a random base of 2 layers, hidden size 32, std 0.3, with tokenizer."""
    return _build_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return `tiny_base(family) -> folder`, each family built once; treat the folders as read-only."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = _build_tiny_base(family, tmp_path_factory.mktemp(f"tiny-{family}"))
        return built[family]

    return get


@pytest.fixture(scope="session")
def tiny_roberta(tiny_base: Callable[[str], Path]) -> Path:
    """Return the folder of a tiny random RoBERTa (a masked language model: no pooler)."""
    return tiny_base("roberta")


@pytest.fixture(scope="session")
def tiny_bert(tiny_base: Callable[[str], Path]) -> Path:
    """Return the folder of a tiny random BERT (a bare encoder with a pooler, as MiniLM's)."""
    return tiny_base("bert")


# ---------------------------------------------------------------------------------------------- small news files

NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")

_PLACES = ("Tarvik", "Osmery", "Belcourt", "Lindosa", "Quarrin", "Maseru Bay", "Hollen", "Pirane", "Dovrin", "Casta")
_PEOPLE = ("Ilva Renn", "Tomas Odell", "Sadia Pruitt", "Goran Vey", "Mina Castell", "Abel Thorne", "Rosa Linde")
_NEWS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("{place} ministers sign truce", "Envoy {person} said the ceasefire starts on {day} after {n} weeks of talks."),
        ("Flood drives families from {place}", "Soldiers carried {n} villagers to safety on {day}, {person} said."),
        ("Parliament in {place} topples premier", "{person} leads a caretaker cabinet from {day}, with {n} deputies."),
    ),
    (
        ("{place} win the derby", "{person} scored in minute {n} and the champions stay top of the league on {day}."),
        ("{person} breaks the sprint record", "The runner from {place} needed {n} starts before the final on {day}."),
        ("Coach {person} leaves {place}", "The club lost {n} matches in a row and names a new trainer on {day}."),
    ),
    (
        (
            "{place} Steel profit rises",
            "Chief executive {person} told investors on {day} that orders grew {n} percent.",
        ),
        ("Bank of {place} cuts its rate", "Shares gained {n} points on {day}; analyst {person} expects cheap loans."),
        ("{person} sells stake in {place} Airways", "The buyer pays {n} million in cash when markets open on {day}."),
    ),
    (
        ("Probe built in {place} reaches comet", "Scientist {person} saw {n} images arrive from the craft on {day}."),
        ("{place} laboratory unveils chip", "The processor runs {n} programs at once, {person} showed on {day}."),
        ("Software flaw found by {person}", "Researchers at {place} patched {n} servers on {day} against the worm."),
    ),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _make_news(num_rows: int, start: int) -> Iterator[tuple[int, str, str]]:
    """Yield (label id, title, description), classes in turn; the row numbers from `start` decide the words."""
    for number in range(start, start + num_rows):
        label, index = number % 4, number // 4
        title, text = _NEWS[label][index % 3]
        words = {
            "place": _PLACES[(index + label) % 10],
            "person": _PEOPLE[(index // 3 + label) % 7],
            "day": _DAYS[(index // 2) % 7],
            "n": str(11 + index),
        }
        yield label, title.format(**words), text.format(**words)


def _write_news(path: Path, num_rows: int = 80, *, start: int = 0, official: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if official else csv.QUOTE_MINIMAL)
        rows = _make_news(num_rows, start)
        if official:
            writer.writerows((label + 1, title, text) for label, title, text in rows)
        else:
            header = ("label", "title", "description")
            named = ((NEWS_LABELS[label], title, text) for label, title, text in rows)
            writer.writerows(itertools.chain([header], named))
    return path


@pytest.fixture(scope="session")
def news_rows() -> Callable[..., Path]:
    """Return `write(path, num_rows=80, *, start=0, official=False) -> path`.

    It writes a csv of short news in four balanced classes (World, Sports, Business, Sci/Tech). Files of the same
    `start` share rows; `start=1000` gives other ones. `official`: headerless, class 1..4, title, description;
    otherwise a header `label,title,description` with class names.
    """
    return _write_news
