"""Triplets by a generator: prompts, answers that are kept, a function, models of transformers, and a real HTTP server."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import contrapose
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    GeneratorFailed,
    PromptInvalid,
    ShapesDiffer,
    WriteFailed,
)
from contrapose.text._contrast import AgainstOpposite, contrastive_logits
from contrapose.text._generation import estimate, generate_triplets, open_prompts, parse_score, write_prompts
from contrapose.text._generators import ChatEndpoint, ModelGenerator, open_generator

PREMISES = ["the cat sat", "a {premise} of old", "the river runs", "the dog sleeps"]
QUIET = {"progress": False}


def writer(prompts: Sequence[str]) -> list[str]:
    """Answers by what it is asked: entailments score 4.5, contradictions 0.5."""
    return [answer_to(prompt) for prompt in prompts]


def answer_to(prompt: str) -> str:
    if prompt.endswith("Number:"):
        return "0.5" if "Second: not " in prompt.rsplit("First:", 1)[1] else " 4.5\n"
    premise = prompt.rsplit("Sentence: ", 1)[1].split("\n")[0]
    return f"so {premise}" if prompt.endswith("Must be true:") else f"not\n{premise}"


# ------------------------------------------------------------------------------------------------------ prompts and scores


def test_what_a_sentence_holds_in_braces_is_left_alone() -> None:
    prompts = open_prompts()
    assert prompts.filled("entail", "a {hypothesis} {x}").endswith("Sentence: a {hypothesis} {x}\nMust be true:")
    assert prompts.filled("score", "{hypothesis}", "b").endswith("First: {hypothesis}\nSecond: b\nNumber:")


def test_prompts_are_files_to_edit(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "mine")
    assert open_prompts(folder) == open_prompts()
    (folder / "entail.txt").write_text("Sag es anders: {premise}\n", encoding="utf-8")
    assert open_prompts(folder).filled("entail", "ja") == "Sag es anders: ja"
    with pytest.raises(WriteFailed, match="mine"):
        write_prompts(folder)
    (folder / "score.txt").write_text("Score {premise}", encoding="utf-8")
    with pytest.raises(PromptInvalid, match=r"score.txt has no \{hypothesis\}"):
        open_prompts(folder)
    (folder / "contradict.txt").unlink()
    with pytest.raises(PromptInvalid, match=r"contradict.txt cannot be read \(No such file"):
        open_prompts(folder)


SAID = {
    "4": 4,
    "3.5": 3.5,
    " 0.0\n": 0,
    "5.9": 5,
    "9.9": None,
    "4.25": None,
    "about 4": None,
    "": None,
    "-1": None,
    "4.": None,
}


@pytest.mark.parametrize(("answer", "score"), SAID.items())
def test_a_score_is_a_digit_or_a_digit_and_a_decimal(answer: str, score: float | None) -> None:
    assert parse_score(answer) == score


# --------------------------------------------------------------------------------------------------- a function, and the CSV


def test_a_function_writes_a_csv_that_multicsr_reads(tmp_path: Path) -> None:
    found = generate_triplets(PREMISES, writer, tmp_path / "triplets.csv", **QUIET)
    assert found.scores == [(4.5, 0.5)] * 4
    table = read(tmp_path / "triplets.csv")
    assert list(table["text"]) == PREMISES
    assert list(table["positive"]) == [f"so {premise}" for premise in PREMISES]
    assert list(table["negative"]) == [f"not {premise}" for premise in PREMISES]  # on one line
    assert table.columns == ["text", "positive", "negative", "positive_score", "negative_score"]


def test_it_goes_on_where_it_was_stopped_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contrapose.text._generation.AT_ONCE", 3)
    asked: list[str] = []

    def stopping(prompts: Sequence[str]) -> list[str]:
        if len(asked) == 7:
            raise KeyboardInterrupt
        asked.extend(prompts)
        return writer(prompts)

    out = tmp_path / "triplets.csv"
    with pytest.raises(KeyboardInterrupt):
        generate_triplets(PREMISES, stopping, out, **QUIET)
    assert not out.exists()
    answers = tmp_path / "triplets.csv.answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-5])  # the last line cut off, as by a kill
    again: list[str] = []
    generate_triplets(PREMISES, lambda prompts: again.extend(prompts) or writer(prompts), out, **QUIET)
    assert len(again) == 16 - 6
    assert set(asked[:6]).isdisjoint(again)
    once_more = generate_triplets(PREMISES, lambda prompts: pytest.fail("asked again"), out, **QUIET)
    assert once_more.scores == [(4.5, 0.5)] * 4


def test_equal_premises_are_asked_once(tmp_path: Path) -> None:
    asked: list[str] = []
    generate_triplets(
        ["a cat"] * 3, lambda prompts: asked.extend(prompts) or writer(prompts), tmp_path / "t.csv", **QUIET
    )
    assert len(asked) == 4


def test_unusable_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    def careless(prompts: Sequence[str]) -> list[str]:
        bad = {"the river runs": "five" if prompts[0].endswith("Number:") else "x", "the cat sat": "  "}
        return [
            next((said for name, said in bad.items() if name in prompt.rsplit("\n\n")[-1]), answer_to(prompt))
            for prompt in prompts
        ]

    found = generate_triplets(PREMISES, careless, tmp_path / "t.csv", **QUIET)
    assert found.rows == [1, 3]
    assert found.lost == {"an empty answer": 1, "an answer that is no score": 1}


def test_a_generator_may_score_by_itself(tmp_path: Path) -> None:
    generator = SimpleNamespace(
        identity="mine", most_tokens=None, count_tokens=lambda texts: len(texts),
        generate=lambda prompts, against=None: writer(prompts),
        score=lambda pairs: [math.nan if "dog" in a else 4.0 if b.startswith("so") else 1.0 for a, b in pairs],
    )  # fmt: skip
    found = generate_triplets(PREMISES, generator, tmp_path / "t.csv", **QUIET)
    assert found.rows == [0, 1, 2]
    assert found.scores == [(4.0, 1.0)] * 3
    assert estimate(PREMISES, generator).calls == 8


def test_only_what_is_not_there_is_written(tmp_path: Path) -> None:
    asked: list[str] = []
    given = {"positive": ["p"] * 4, "negative": None}
    found = generate_triplets(
        PREMISES,
        lambda prompts: asked.extend(prompts) or writer(prompts),
        tmp_path / "t.csv",
        given=given,
        score=False,
        **QUIET,
    )
    assert found.positives == ["p"] * 4
    assert len(asked) == 4
    assert all(prompt.endswith("Cannot be true:") for prompt in asked)
    assert read(tmp_path / "t.csv").columns == ["text", "positive", "negative"]


def test_calls_and_tokens_are_said_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = estimate(PREMISES, writer)
    assert (found.calls, found.answer_tokens) == (16, None)
    prompts = open_prompts()
    exact = sum(len(prompts.filled(name, p)) for name in ("entail", "contradict") for p in PREMISES)
    exact += 2 * sum(len(prompts.filled("score", p, p)) for p in PREMISES)
    assert found.prompt_tokens == exact // 4

    def broken(prompts: Sequence[str]) -> list[str]:
        raise RuntimeError(capsys.readouterr().err)

    with pytest.raises(RuntimeError, match=f"^16 calls of the generator, about {exact // 4:,} tokens of prompts"):
        generate_triplets(PREMISES, broken, tmp_path / "t.csv")


def test_answers_that_are_not_one_text_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(GeneratorFailed, match=r"given 4 prompts .* returned 1, of str"):
        generate_triplets(PREMISES, lambda prompts: ["one"], tmp_path / "a.csv", **QUIET)
    with pytest.raises(GeneratorFailed, match="returned 4, of int"):
        generate_triplets(PREMISES, lambda prompts: [1] * len(prompts), tmp_path / "b.csv", **QUIET)
    with pytest.raises(ArgumentInvalid, match=r"out=FILE\.csv"):
        generate_triplets(PREMISES, writer)
    with pytest.raises(ArgumentInvalid, match="contrast needs the logits"):
        generate_triplets(PREMISES, writer, tmp_path / "c.csv", contrast=True, **QUIET)


# ------------------------------------------------------------------------------------------------- an endpoint, over real HTTP


class Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append({**body, "path": self.path, "key": self.headers["Authorization"]})
        if server.refusals:
            status, answer = server.refusals.pop(0)
        else:
            status, answer = 200, {"choices": [{"message": {"content": answer_to(body["messages"][0]["content"])}}]}
        said = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *said: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("CONTRAPOSE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as running:
        running.seen, running.refusals = [], []
        running.address = f"http://127.0.0.1:{running.server_port}/v1"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_an_endpoint_is_asked_as_openai_is(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    endpoint = ChatEndpoint(server.address, "small", most_tokens=64)
    prompts = [open_prompts().filled("entail", premise) for premise in PREMISES]
    assert endpoint.generate(prompts) == writer(prompts)  # in order, though several at once
    assert {
        (seen["path"], seen["model"], seen["max_tokens"], seen["temperature"], seen["key"]) for seen in server.seen
    } == {("/v1/chat/completions", "small", 64, 0, "Bearer k")}
    assert "k" not in endpoint.identity.split()
    assert estimate(PREMISES, endpoint).answer_tokens == 16 * 64


def test_too_many_requests_are_tried_again(server: Any) -> None:
    server.refusals = [(429, {}), (503, {})]
    assert ChatEndpoint(server.address, "small", wait=0.01).ask("Sentence: a\nMust be true:") == "so a"
    assert len(server.seen) == 3


REFUSED = {
    "no such model": ([(404, {"error": "no model of that name"})], 1, r"status 404: .*no model of that name"),
    "always busy": ([(503, {})] * 3, 3, "status 503"),
    "another service": ([(200, {"hello": 1})], 1, "not as an OpenAI-compatible endpoint"),
}


@pytest.mark.parametrize(("refusals", "calls", "said"), REFUSED.values(), ids=REFUSED)
def test_an_endpoint_that_fails(refusals: list, calls: int, said: str, server: Any) -> None:
    server.refusals = list(refusals)
    with pytest.raises(GeneratorFailed, match=said):
        ChatEndpoint(server.address, "small", wait=0.01, tries=3).ask("x")
    assert len(server.seen) == calls


def test_an_endpoint_that_is_not_there(server: Any) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(GeneratorFailed, match="did not answer"):
        ChatEndpoint(server.address, "small", wait=0.01, tries=2).ask("x")
    with pytest.raises(GeneratorFailed, match="generator_model=NAME"):
        ChatEndpoint(server.address, None)


def test_raw_sentences_and_an_endpoint_train_and_the_answers_are_kept(
    server: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))
    settings = {
        "generator": server.address,
        "generator_model": "small",
        "reference": "initial",
        "steps": 2,
        "batch_size": 4,
    }
    for name in ("first", "again"):
        run = contrapose.train(
            "multicsr", PREMISES, encoder=str(tiny_bert), out=tmp_path / name, progress=False, settings=settings
        )
    assert len(server.seen) == 16
    assert run.model.encode(["the cat"]).shape == (1, 32)


# ------------------------------------------------------------------------------------------------------------- language models


def test_contrast_is_of_logits_among_plausible_tokens() -> None:
    wanted, opposite = torch.tensor([[2.0, 1.9, 0.0, -3.0]]), torch.tensor([[2.0, 0.0, 5.0, -9.0]])
    found = contrastive_logits(wanted, opposite, contrast=0.5, plausible=0.1)
    expected = torch.tensor(
        [[1.5 * 2 - 0.5 * 2, 1.5 * 1.9, 1.5 * 0 - 0.5 * 5, -math.inf]]
    )  # exp(-2) is above 0.1, exp(-5) below
    torch.testing.assert_close(found, expected)
    assert found.argmax() == 1  # plain decoding takes 0
    assert contrastive_logits(wanted, opposite, contrast=0.5, plausible=0.2)[0, 2] == -math.inf
    assert contrastive_logits(wanted, opposite, contrast=0.5, plausible=0.0)[0, 3] == 1.5 * -3 + 0.5 * 9
    assert contrastive_logits(wanted, opposite, contrast=0.0) is wanted


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"contrast": -0.1}, ArgumentInvalid),
        ({"contrast": 1.1}, ArgumentInvalid),
        ({"contrast": 0.5, "plausible": 2.0}, ArgumentInvalid),
    ],
)
def test_contrast_out_of_range(options: dict[str, float], error: type[ContraposeError]) -> None:
    with pytest.raises(error, match="must lie from 0 to 1"):
        contrastive_logits(torch.zeros(1, 3), torch.zeros(1, 3), **options)
    with pytest.raises(ShapesDiffer, match="one vocabulary"):
        contrastive_logits(torch.zeros(1, 3), torch.zeros(1, 4), contrast=0.5)


@pytest.fixture(scope="module", params=["causal", "seq2seq"])
def language_model(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model with the words of the tiny BERT."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    special = {"pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if request.param == "causal":
            sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 600, "initializer_range": 0.5}
            model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **special))
        else:
            sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "initializer_factor": 2.0}
            model = T5ForConditionalGeneration(
                T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes, **special)
            )
    folder = tmp_path_factory.mktemp("language") / request.param
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


PROMPTS = ["the cat sat on the mat", "a dog", "is it a very large house"]
OPPOSITE = ["a river", "the old tree runs under the house", "it is small"]


def by_hand(generator: ModelGenerator, prompt: str, other: str, contrast: float, tokens: int) -> str:
    """Greedy decoding, whole passes, one token after another."""
    ids = [generator.tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, other)]
    written = torch.zeros(1, 1 if generator.has_decoder else 0, dtype=torch.long)
    for _ in range(tokens):
        with torch.inference_mode():
            wanted, opposite = (
                generator.model(input_ids=each, decoder_input_ids=written).logits[:, -1]
                if generator.has_decoder
                else generator.model(input_ids=torch.cat([each, written], dim=1)).logits[:, -1]
                for each in ids
            )
        mixed = (1 + contrast) * wanted - contrast * opposite
        mixed[wanted.softmax(dim=-1) < 0.1 * wanted.softmax(dim=-1).max()] = -math.inf
        written = torch.cat([written, mixed.argmax(dim=-1, keepdim=True)], dim=1)
        if written[0, -1] == generator.model.config.eos_token_id:
            break
    return generator.tokenizer.decode(written[0], skip_special_tokens=True)


@pytest.mark.parametrize("contrast", [0.0, 0.8])
def test_models_of_transformers_decode_greedily_with_and_without_contrast(
    language_model: Path, contrast: float
) -> None:
    generator = open_generator(str(language_model), None, most_tokens=6, contrast=contrast, plausible=0.1)
    found = generator.generate(PROMPTS, OPPOSITE)
    assert found == [by_hand(generator, *pair, contrast, 6) for pair in zip(PROMPTS, OPPOSITE, strict=True)]
    plain = open_generator(str(language_model), None, most_tokens=6, contrast=0.0, plausible=0.1)
    assert plain.identity == generator.identity if contrast == 0 else plain.identity != generator.identity
    assert generator.count_tokens(["a dog", "the"]) == 7


def test_the_opposite_goes_with_the_words_written_so_far() -> None:
    seen: list[list[int]] = []

    def model(input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        seen.append(input_ids[0].tolist())
        return SimpleNamespace(logits=torch.tensor([[[0.0, 3.0]]]))

    model.config = SimpleNamespace(is_encoder_decoder=False)
    processor = AgainstOpposite(model, torch.tensor([[7, 8]]), 3, contrast=1.0, plausible=0.0)
    found = processor(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1.0, 1.0]]))
    assert seen == [[7, 8, 4, 5]]
    assert found.tolist() == [[2.0, -1.0]]


def test_a_folder_without_a_language_model(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ContraposeError, match="no folder"):
        open_generator(str(tmp_path / "none"), None, most_tokens=4, contrast=0, plausible=0.1)
