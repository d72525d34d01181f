"""Make benchmarks/data/wordnet_definitions from Open English WordNet's synsets.

    python benchmarks/make_wordnet_definitions.py SYNSETS.jsonl.gz

The source: one JSON object a line, a synset each, with `pos`, `words` and `definition`, as they stand in src/yaml of
github.com/globalwordnet/english-wordnet (its `members` are `words` here). Chosen are 6,000 words of nouns and verbs, by the SHA-256 of the word:
single words of lower-case letters alone, each with all of its definitions.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from pathlib import Path

OUT = Path(__file__).parent / "data" / "wordnet_definitions" / "definitions.jsonl.gz"
WORDS = 6000


def main(source: Path) -> None:
    senses: dict[str, dict[str, None]] = {}
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for synset in map(json.loads, file):
            if synset["pos"] not in ("noun", "verb"):
                continue
            for word in synset["words"]:
                if re.fullmatch("[a-z]{2,}", word):
                    senses.setdefault(word, {})[" ".join(synset["definition"].split())] = None
    chosen = sorted(sorted(senses, key=lambda word: hashlib.sha256(word.encode()).digest())[:WORDS])
    rows = [{"entry": word, "definition": definition} for word in chosen for definition in senses[word]]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    OUT.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{len(chosen):,} words, {len(rows):,} definitions, SHA-256 of the text {hashlib.sha256(text).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
