"""Make benchmarks/data/wordnet_sisters from Open English WordNet: definitions of sister synsets, by lexicographer file.

python benchmarks/make_wordnet_sisters.py --data FOLDER    # src/yaml of github.com/globalwordnet/english-wordnet at d94538ad0df3
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path

import yaml

DOMAINS = ("noun.animal", "noun.artifact", "noun.person", "verb.change")
MOST = {"train": 1000, "dev": 150, "test": 300}  # pairs of a domain that belong together
OUTPUT = Path(__file__).parent / "data" / "wordnet_sisters"


def sister_pairs(file: Path, drawn: random.Random) -> dict[str, list[tuple[str, str, str]]]:
    """For each split, pairs (definition, definition, hypernym) of synsets of one file with one hypernym; a synset stands in one pair at most.

    Hypernyms are divided over the splits, so that no split holds a sister of another's.
    """
    with open(file, encoding="utf-8") as opened:
        synsets = yaml.load(opened, Loader=yaml.CSafeLoader)
    children = defaultdict(dict)
    for synset in synsets.values():
        if len(synset.get("hypernym", ())) == 1:
            children[synset["hypernym"][0]][" ".join(synset["definition"][0].split())] = None  # one each
    hypernyms = sorted(name for name, texts in children.items() if len(texts) > 1)
    drawn.shuffle(hypernyms)
    found: dict[str, list[tuple[str, str, str]]] = {split: [] for split in MOST}
    used: set[str] = set()
    for number, hypernym in enumerate(hypernyms):
        split = ("train", "train", "train", "dev", "test", "test")[number % 6]
        texts = [text for text in children[hypernym] if text not in used]
        drawn.shuffle(texts)
        used.update(texts)
        found[split] += [(a, b, hypernym) for a, b in zip(texts[::2], texts[1::2], strict=False)]
    for split, pairs in found.items():
        drawn.shuffle(pairs)
        del pairs[MOST[split] :]
    return found


def apart(pairs: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """As many pairs of other hypernyms: each first definition with the second of a later pair."""
    turned = pairs[1:] + pairs[:1]
    for place, (first, (_, _, other)) in enumerate(zip(pairs, turned, strict=True)):
        if first[2] == other:  # exchange with the next that differs on both sides
            for swap in range(len(turned)):
                if turned[swap][2] != first[2] and other != pairs[swap][2]:
                    turned[place], turned[swap] = turned[swap], turned[place]
                    break
    return [(a, b) for (a, _, _), (_, b, _) in zip(pairs, turned, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the source's folder src/yaml")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    drawn, rows = random.Random(0), defaultdict(list)
    for domain in DOMAINS:
        for split, pairs in sister_pairs(asked.data / f"{domain}.yaml", drawn).items():
            named = [{"anchor": a, "positive": b, "domain": domain, "label": 1} for a, b, _ in pairs]
            if split != "train":
                named += [{"anchor": a, "positive": b, "domain": domain, "label": 0} for a, b in apart(pairs)]
            rows[split] += named
    print("| file | pairs | " + " | ".join(DOMAINS) + " | SHA-256 of its text |")
    for split, found in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()
        (asked.output / f"{split}.jsonl.gz").write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
        counts = " | ".join(str(sum(row["domain"] == domain for row in found)) for domain in DOMAINS)
        print(f"| `{split}.jsonl.gz` | {len(found):,} | {counts} | `{hashlib.sha256(text).hexdigest()}` |")


if __name__ == "__main__":
    main()
