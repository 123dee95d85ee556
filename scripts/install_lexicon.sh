#!/usr/bin/env bash
# Put the WordNet database where nltk looks for it: into a virtual environment, with or without root. It comes from
# Debian's package wordnet-base or, without apt, from nltk's download. If a database is found already, nothing is done.
#
#   scripts/install_lexicon.sh .venv
set -euo pipefail
venv=$1
found() { "$venv/bin/python" -c 'from submillion.wordnet.lexicon import load_lexicon; print("WordNet:", load_lexicon().place)'; }
if found 2>/dev/null; then exit 0; fi

folder="$(cd "$venv" && pwd)/share/nltk_data"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The package is unpacked, not installed, which needs no root and does not change the machine.
unpack_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    (cd "$work" && apt-get -qq download wordnet-base) \
        || { [ "$(id -u)" = 0 ] && apt-get -qq update && (cd "$work" && apt-get -qq download wordnet-base); } \
        || return 1
    dpkg -x "$work"/wordnet-base_*.deb "$work/root" || return 1
    mkdir -p "$folder/corpora"
    cp -r "$work/root/usr/share/wordnet" "$folder/corpora/wordnet"
}
fetch_nltk() { "$venv/bin/python" -m nltk.downloader -q -d "$folder" wordnet; }

unpack_debian || fetch_nltk || true
if ! found; then
    echo "error: no WordNet database could be fetched, and the tests need one. Install Debian's package with" >&2
    echo "  apt-get install wordnet-base, or fetch nltk's: $venv/bin/python -m nltk.downloader wordnet" >&2
    exit 1
fi
