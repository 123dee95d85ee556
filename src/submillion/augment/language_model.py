"""Causal language models: loaded from a folder or the hub, or built from scratch, and proven to keep rows separate.

The files come through `model/sources.py`, which allows neither remote code nor pickled weights.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from submillion.augment.blocks import make_block_mask
from submillion.encoding.tokenizer_files import SPECIAL_NAMES, load_tokenizer, read_settings
from submillion.errors import ModelError, RunError
from submillion.model.base_files import digest_file, list_weights, read_config
from submillion.model.sources import BaseModel, find_base
from submillion.model.stock import JUNK_KEY, build_stock_config, load_stock_model, quiet_loading
from submillion.model.untyped import Stock
from submillion.storage.files import full_disk_is_run_error, sync_folder

SCRATCH_NAME = "from-scratch"
SCRATCH_VOCABULARY = 4096
# This has 4.3 million parameters with the vocabulary and trains in some minutes on two CPU cores.
SCRATCH_SIZES: dict[str, Any] = {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 512}
END = "<|endoftext|>"

_WAYS_OUT = (
    "Give a folder with config.json, the tokenizer and model.safetensors of a causal language model: --model FOLDER. "
    "Or unset HF_HUB_OFFLINE once where the hub can be reached, so that the model is kept. Or use --from-scratch: it "
    "trains a tiny model on your rows alone, which shows the steps but writes junk."
)


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, in float32, and its tokenizer.

    Attributes:
        name: Short name, hub id or folder.
        model: Model of transformers.
        tokenizer: Tokenizer of transformers.
        start_id: Token with which every row begins.
        end_id: Token with which every row ends.
        max_tokens: Number of tokens that the model can read at once.
    """

    name: str
    model: Stock
    tokenizer: Stock
    start_id: int
    end_id: int
    max_tokens: int

    @property
    def is_junk(self) -> bool:
        """Whether the model was trained only on a few rows; its configuration says so wherever it is copied."""
        return bool(getattr(self.model.config, JUNK_KEY, False))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def find_language_model(name: str, revision: str | None) -> BaseModel:
    """Return the files of a language model, and download them if they are not on this machine.

    Raises:
        ModelError: The model is not available, its files are damaged, or it has only pickled weights.
        ConfigError: A revision was given for a folder.
    """
    try:
        return find_base(name, revision)
    except ModelError as error:
        if error.where != "model.base":
            raise
        # The original hint names encoders, which cannot generate text.
        raise ModelError(error.message, where="--model", hint=_WAYS_OUT) from None


def load_language_model(folder: Path, *, name: str) -> LanguageModel:
    """Load a language model from its files, and prove that it is one.

    Args:
        folder: Folder with config.json, the tokenizer and the safetensors files.
        name: Name of the model in messages.

    Raises:
        ModelError: The model is not causal or needs code from its repository, weights are missing, the tokenizer has no
            end token, or the model does not keep the rows of one block separate.
    """
    values = read_config(folder)
    try:
        config = build_stock_config(values, where=name)
        loaded = load_stock_model(folder, "language model", config=config, attention="sdpa")
        tokenizer = _load_fast_tokenizer(folder, config)
    except ModelError as error:
        raise ModelError(
            f"{values['model_type']!r:.80} cannot be loaded as a causal language model: {error.message}",
            where=name,
            hint="Give a model of an architecture that transformers itself implements, such as gpt2.",
        ) from None
    model = loaded.model
    if loaded.missing:
        raise ModelError(
            f"lacks {len(loaded.missing)} tensors of a language model, such as {loaded.missing[0]}",
            where=name,
            hint="Is it a causal language model? Encoders such as roberta-base cannot generate text.",
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError("its tokenizer has no end token", where=name, hint="Set eos_token in tokenizer_config.json.")
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    limit = getattr(model.config, "max_position_embeddings", None) or 1024
    language_model = LanguageModel(name, model.eval(), tokenizer, int(start), int(end), int(limit))
    check_rows_apart(language_model)
    return language_model


def _load_fast_tokenizer(folder: Path, config: Stock) -> Stock:
    """Return a tokenizer of transformers around a checked one, with the special tokens of its settings."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = load_tokenizer(folder)
    settings = read_settings(folder)
    specials = {key: settings[key] for key in SPECIAL_NAMES if key in settings}
    for key in ("bos_token", "eos_token"):
        number = getattr(config, f"{key}_id", None)
        token = tokenizer.id_to_token(number) if type(number) is int and 0 <= number < 1 << 32 else None
        if key not in specials and token is not None:
            specials[key] = token
    unknown = sorted(token for token in map(str, specials.values()) if tokenizer.token_to_id(token) is None)
    if unknown:
        raise ModelError(f"its vocabulary lacks the special token {unknown[0]!r}", where=str(folder))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def build_scratch_model(texts: Iterable[str], folder: Path, *, seed: int) -> None:
    """Write a tiny untrained GPT-2 with a byte-level BPE tokenizer trained on some texts.

    The folder appears whole. Such a model writes junk after minutes of training.

    Args:
        texts: Texts of the rows, from which the tokenizer is trained.
        folder: New folder for the model.
        seed: Seed for the initial weights.

    Raises:
        RunError: The disk is full.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer: Stock = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SCRATCH_VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    size = tokenizer.get_vocab_size()
    config = GPT2Config(
        **SCRATCH_SIZES, vocab_size=size, bos_token_id=0, eos_token_id=0, resid_pdrop=0.1, embd_pdrop=0.1
    )
    setattr(config, JUNK_KEY, True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    save_language_model(LanguageModel(SCRATCH_NAME, model, fast, 0, 0, SCRATCH_SIZES["n_positions"]), folder)


def save_language_model(language_model: LanguageModel, folder: Path) -> None:
    """Write model and tokenizer as `save_pretrained` does; the folder appears whole by a rename.

    Raises:
        RunError: The disk is full.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    with full_disk_is_run_error(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with quiet_loading():
                language_model.model.save_pretrained(temporary)
            language_model.tokenizer.save_pretrained(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(folder.parent)


def digest_language_model(folder: Path) -> str:
    """Return the SHA-256 of a saved model's weights.

    Raises:
        RunError: The folder has no weights.
    """
    names = list_weights([path.name for path in folder.iterdir()]) if folder.is_dir() else []
    if not names:
        raise RunError("has no weights", where=str(folder), hint="Delete the work folder and run again.")
    return digest_file(folder / names[0])


def check_rows_apart(language_model: LanguageModel) -> None:
    """Prove on random tokens that a row's logits depend only on its own earlier tokens.

    Three rows are read alone, packed into one block, and padded on the left, and must get the same logits. Otherwise a
    silent mix of rows, or a model that sees later tokens, would look like a poor model.

    Raises:
        ModelError: The logits differ, or the architecture takes no positions.
    """
    model = language_model.model
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise _explain_architecture(language_model, "takes no positions")
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]
    lengths = (7, 4, 5)
    rows = [torch.randint(size, (length,), generator=generator) for length in lengths]
    device = next(model.parameters()).device
    with torch.inference_mode():
        alone = [model(input_ids=row[None].to(device), use_cache=False).logits[0] for row in rows]
        # Without its last token, a row must keep the logits of the others.
        short = [model(input_ids=row[None, :-1].to(device), use_cache=False).logits[0] for row in rows]
        segments = torch.cat([torch.full((length,), row) for row, length in enumerate(lengths)])[None].to(device)
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
        packed = model(
            input_ids=torch.cat(rows)[None].to(device),
            position_ids=positions,
            attention_mask=make_block_mask(segments),
            use_cache=False,
        ).logits[0]
        widest = max(lengths)
        ids = torch.stack([torch.nn.functional.pad(row, (widest - len(row), 0)) for row in rows]).to(device)
        mask = torch.stack([torch.arange(widest) >= widest - length for length in lengths]).long().to(device)
        padded = model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).logits
    ends = torch.tensor(lengths).cumsum(0).tolist()
    pairs = list(zip(short, [row[:-1] for row in alone], strict=True))
    pairs += [(packed[end - len(row) : end], row) for row, end in zip(alone, ends, strict=True)]
    pairs += [(left[widest - len(row) :], row) for left, row in zip(padded, alone, strict=True)]
    scale = max(1.0, *(float(row.abs().max()) for row in alone))
    if any(float((one - other).abs().max()) > 1e-3 * scale for one, other in pairs):
        raise _explain_architecture(language_model, "does not keep the rows of a batch separate")


def _explain_architecture(language_model: LanguageModel, lack: str) -> ModelError:
    return ModelError(
        f"the architecture {language_model.model.config.model_type!r} {lack}",
        where=language_model.name,
        hint="Give a causal language model such as gpt2, or one of the Llama or Qwen families.",
    )
