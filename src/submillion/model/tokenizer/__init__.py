"""Tokenizers of others, judged before they are built."""
