"""Synthetic training rows, written by a language model; a run only reads them and never comes here."""
