"""Triplets written and scored by a generator, one answer after another kept on disk, so that what is stopped goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from contrapose.data.cache import cache_folder
from contrapose.errors import ArgumentInvalid, GeneratorFailed, PromptInvalid, WriteFailed
from contrapose.text._generators import Generator, as_generator, open_generator
from contrapose.training.bar import Bar

SCORES = ("positive_score", "negative_score")
LARGEST = 5.0  # of a score
AT_ONCE = 32  # prompts that a generator is given together
PLACES = {"entail": ("{premise}",), "contradict": ("{premise}",), "score": ("{premise}", "{hypothesis}")}
PACKAGED = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Prompts:
    """What a generator is asked, with places for the sentence and for what is compared with it."""

    entail: str
    contradict: str
    score: str

    def filled(self, name: str, premise: str, hypothesis: str = "") -> str:
        """A prompt about a sentence. What the sentence itself holds in braces is left alone."""
        words = {"{premise}": premise, "{hypothesis}": hypothesis}
        return re.sub(r"\{premise\}|\{hypothesis\}", lambda found: words[found[0]], getattr(self, name))


def open_prompts(folder: Path | str | None = None) -> Prompts:
    """The prompts in a folder, or the packaged ones. Raises PromptInvalid."""
    texts, folder = {}, PACKAGED if folder is None else Path(folder).expanduser()
    for name, places in PLACES.items():
        file = folder / f"{name}.txt"
        try:
            texts[name] = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PromptInvalid(
                f"The prompt {file} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8'})."
            ) from None
        for place in places:
            if place not in texts[name]:
                raise PromptInvalid(f"The prompt {file} has no {place}, the place for what it asks about.")
    return Prompts(**texts)


def write_prompts(folder: Path | str) -> Path:
    """Write the packaged prompts into a new folder, to be edited and given as `prompts`. Raises WriteFailed."""
    try:
        return Path(shutil.copytree(PACKAGED, folder))
    except OSError as error:
        raise WriteFailed(
            f"{folder} could not be written ({error.strerror or 'it is there'}). Give a new folder."
        ) from None


def parse_score(answer: str) -> float | None:
    """The number of an answer that is a digit, or a digit and one decimal, from 0 to 5; None for every other answer."""
    found = re.fullmatch(r"[0-5](\.\d)?", answer.strip())
    return None if found is None else min(float(found[0]), LARGEST)


class Answers:
    """The answers of a generator by what it was asked: a file of JSON lines, to which each batch of them is added at once.

    A last line that was cut off when the run was killed is left out and asked again. Raises WriteFailed.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity, self.known = path, identity, {}
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    key, answer = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.known[key], whole = answer, whole + len(line)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise WriteFailed(f"{path} cannot be written ({error.strerror}). Give a folder with room.") from None

    def key(self, *asked: str | None) -> str:
        return hashlib.sha256(json.dumps([self.identity, *asked]).encode()).hexdigest()

    def add(self, keys: Sequence[str], answers: Sequence[Any]) -> None:
        lines = "".join(json.dumps(pair) + "\n" for pair in zip(keys, answers, strict=True))
        try:
            self._file.write(lines.encode())
            self._file.flush()
        except OSError as error:
            raise WriteFailed(
                f"{self.path} cannot be written ({error.strerror}). Make room; what is there is kept."
            ) from None
        self.known |= dict(zip(keys, answers, strict=True))

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Estimate:
    """What a generation will ask: calls, and tokens of prompts and (at most, or None where nothing bounds them) of answers."""

    calls: int
    prompt_tokens: int
    answer_tokens: int | None

    def __str__(self) -> str:
        most = "" if self.answer_tokens is None else f", and at most {self.answer_tokens:,} of answers"
        return f"{self.calls:,} calls of the generator, about {self.prompt_tokens:,} tokens of prompts{most}"


@dataclass(frozen=True)
class Generated:
    """Whole triplets: `rows` are the places of their premises. `scores` are pairs, or None; `lost` says why others are not there."""

    rows: list[int]
    positives: list[str]
    negatives: list[str]
    scores: list[tuple[float, float]] | None
    lost: dict[str, int]


def estimate(
    premises: Sequence[str],
    generator: Any,
    *,
    prompts: Prompts | Path | str | None = None,
    given: Mapping[str, Sequence[str] | None] | None = None,
    score: bool = True,
) -> Estimate:
    """Calls and tokens, before anything is asked; answers are taken to be as long as their premises when they are scored.

    `given`: the columns "positive" and "negative" that need not be written.
    """
    generator, prompts = as_generator(generator), prompts if isinstance(prompts, Prompts) else open_prompts(prompts)
    given = given or {}
    asked = [name for name, side in (("entail", "positive"), ("contradict", "negative")) if given.get(side) is None]
    texts = [prompts.filled(name, premise) for name in asked for premise in premises]
    if score and not hasattr(generator, "score"):
        for side in ("positive", "negative"):
            others = given.get(side) or premises
            texts += [prompts.filled("score", *pair) for pair in zip(premises, others, strict=True)]
    most = generator.most_tokens
    return Estimate(len(texts), generator.count_tokens(texts), None if most is None else most * len(texts))


def generate_triplets(
    premises: Sequence[str],
    generator: Any,
    out: Path | str | None = None,
    *,
    prompts: Path | str | None = None,
    given: Mapping[str, Sequence[str] | None] | None = None,
    score: bool = True,
    contrast: bool = False,
    answers: Path | str | None = None,
    progress: bool = True,
) -> Generated:
    """Write for each sentence one that follows and one that contradicts it, and score both pairs, by a generator.

    Args:
        premises: n sentences.
        generator: a function from a list of prompts to as many texts, or an object as in `contrapose.text._generators`.
        out: a CSV for `contrapose train multicsr`: text, positive, negative, positive_score, negative_score. None: none is written.
        prompts: a folder of entail.txt, contradict.txt and score.txt (`write_prompts`); None: the packaged ones.
        given: the columns "positive" and "negative", n texts each, that are there already: only the rest is written.
        score: ask for the two scores.
        contrast: hand each prompt over with that of the opposite instruction.
        answers: the file of JSON lines that keeps every answer, so that the same call goes on where it was stopped; None: beside `out`.
        progress: say what will be asked, and show a bar.

    Rows with an empty text, or with an answer that is no score (d or d.d, up to 5), are left out and counted.
    Raises GeneratorFailed, PromptInvalid, WriteFailed, and ArgumentInvalid where neither `out` nor `answers` is given.
    """
    if out is None and answers is None:
        raise ArgumentInvalid("generate_triplets needs out=FILE.csv, or answers=FILE.jsonl to keep the answers.")
    generator, asking = as_generator(generator), open_prompts(prompts)
    given = {side: (given or {}).get(side) for side in ("positive", "negative")}
    kept = Answers(Path(answers) if answers is not None else Path(f"{out}.answers.jsonl"), generator.identity)
    console = Console(stderr=True)
    if progress:
        expected = estimate(premises, generator, prompts=asking, given=given, score=score)
        console.print(
            f"{expected}; answers that are kept in {kept.path} are not asked again.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    try:
        entail, contradict = ([asking.filled(name, each) for each in premises] for name in ("entail", "contradict"))
        sides = []
        for side, mine, other in (("positive", entail, contradict), ("negative", contradict, entail)):
            if (texts := given[side]) is None:
                against = other if contrast else None
                texts = [" ".join(text.split()) for text in written(generator, kept, mine, against, side, progress)]
            sides.append(list(texts))
        scores = [scored(generator, kept, asking, premises, side, progress) for side in sides] if score else None
    finally:
        kept.close()
    found = whole_rows(sides, scores)
    if out is not None:
        write_triplets(Path(out), premises, found)
    return found


def written(
    generator: Generator,
    kept: Answers,
    prompts: Sequence[str],
    against: Sequence[str] | None,
    what: str,
    progress: bool,
) -> list[str]:
    """The generator's text for each prompt."""
    keys = [kept.key(prompt, None if against is None else against[row]) for row, prompt in enumerate(prompts)]

    def ask(rows: Sequence[int]) -> Sequence[Any]:
        others = None if against is None else [against[row] for row in rows]
        return generator.generate([prompts[row] for row in rows], others)

    ask_all(ask, keys, kept, f"Writing each {what}", progress, str)
    return [kept.known[key] for key in keys]


def scored(
    generator: Generator, kept: Answers, prompts: Prompts, premises: Sequence[str], texts: Sequence[str], progress: bool
) -> list[float | None]:
    """A score of each pair; None where the answer is none."""
    pairs = list(zip(premises, texts, strict=True))
    if not hasattr(generator, "score"):
        asked = [prompts.filled("score", *pair) for pair in pairs]
        return [parse_score(answer) for answer in written(generator, kept, asked, None, "score", progress)]
    keys = [kept.key("score", *pair) for pair in pairs]
    ask_all(
        lambda rows: [float(each) for each in generator.score([pairs[row] for row in rows])],
        keys, kept, "Scoring", progress, float,
    )  # fmt: skip
    values = [kept.known[key] for key in keys]
    return [value if 0 <= value <= LARGEST else None for value in values]  # NaN is neither


def ask_all(
    ask: Callable[[Sequence[int]], Sequence[Any]],
    keys: Sequence[str],
    kept: Answers,
    what: str,
    progress: bool,
    kind: type,
) -> None:
    """Ask for what is not known yet, some at a time, and keep it. Of equal prompts the first is asked. Raises GeneratorFailed."""
    first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in kept.known}
    rows = sorted(first.values())
    with Bar(what, len(rows), shown=progress) as bar:
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            answers = list(ask(part))
            if len(answers) != len(part) or not all(isinstance(answer, kind) for answer in answers):
                raise GeneratorFailed(
                    f"The generator was given {len(part)} prompts and must return as many values of {kind.__name__}; it returned "
                    f"{len(answers)}, of {', '.join(sorted({type(answer).__name__ for answer in answers})) or 'none'}."
                )
            kept.add([keys[row] for row in part], answers)
            bar.advance(len(part))


def whole_rows(sides: Sequence[Sequence[str]], scores: Sequence[Sequence[float | None]] | None) -> Generated:
    """The rows that have both texts and both scores."""
    rows, lost = [], Counter()
    for row, (positive, negative) in enumerate(zip(*sides, strict=True)):
        if not positive or not negative:
            lost["an empty answer"] += 1
        elif scores is not None and any(side[row] is None for side in scores):
            lost["an answer that is no score"] += 1
        else:
            rows.append(row)
    pairs = None if scores is None else [tuple(side[row] for side in scores) for row in rows]
    return Generated(rows, *([side[row] for row in rows] for side in sides), pairs, dict(lost))


def write_triplets(path: Path, premises: Sequence[str], found: Generated) -> None:
    """The CSV that `multicsr` trains on. Raises WriteFailed."""
    header = ["text", "positive", "negative", *(SCORES if found.scores is not None else ())]
    texts = zip((premises[row] for row in found.rows), found.positives, found.negatives, strict=True)
    lines: Iterable[Sequence[Any]] = (
        [*row, *(() if found.scores is None else found.scores[number])] for number, row in enumerate(texts)
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *lines])
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteFailed(f"{path} could not be written ({error.strerror}). Make room, or give another file.") from None


def generated(columns: Mapping[str, Sequence[str] | None], settings: Any) -> Generated:
    """What the data lack, by the generator of `MultiCSR`'s settings; answers are kept in the cache."""
    generator = open_generator(
        settings.generator,
        settings.generator_model,
        most_tokens=settings.max_new_tokens,
        contrast=settings.contrast,
        plausible=settings.plausible,
    )
    name = hashlib.sha256(generator.identity.encode()).hexdigest()
    return generate_triplets(
        columns["text"],
        generator,
        prompts=settings.prompts,
        given=columns,
        score=settings.curate,
        contrast=settings.contrast > 0,
        answers=cache_folder() / "generation" / f"{name}.jsonl",
    )
