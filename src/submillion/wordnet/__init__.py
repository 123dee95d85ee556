"""Synonym rows from WordNet: the lexicon, parts of speech, inflection, and what is replaced by what."""
