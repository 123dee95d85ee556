"""Tiny causal language models: GPT-2 from its configuration with a byte-level tokenizer, as a folder."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|endoftext|>"
_SENTENCES = (
    "The river council met at dawn to settle the quarrel over the northern bridge before the ministers came.",
    "A striker of nineteen scored twice before the break and the visitors of Tarvik never recovered on Monday.",
    "Shares of the ferry company fell sharply after the bank warned of a second weak quarter in Osmery.",
    "Engineers have taught a small robot to fold shirts by watching people in Belcourt for an hour.",
    "Farmers in the valley sold their last wheat of the season at a price nobody expected until Friday.",
    "The telescope found water vapour around a planet that circles a faint red star, the team said.",
)


def build_tiny_gpt2(folder: Path, *, seed: int = 3, positions: int = 160) -> Path:
    """Write a random GPT-2 of 2 layers and hidden size 32, standard deviation 0.3, whose tokens are parts of words.

    It knows ASCII only: whatever it writes is made of letters, as real text is.
    """
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator([*_SENTENCES, " ".join(string.printable)], trainer)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=positions,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END).save_pretrained(folder)
    return folder
