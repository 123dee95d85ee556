"""Synonym rows from WordNet: the lexicon, parts of speech, inflection, and the choice of synonyms."""
