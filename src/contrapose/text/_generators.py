"""Generators of texts: a function, a language model of transformers, an OpenAI-compatible endpoint."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from contrapose.data.cache import file_digest
from contrapose.errors import ArgumentInvalid, GeneratorFailed
from contrapose.text._contrast import AgainstOpposite
from contrapose.text._loading import find, load_tokenizer
from contrapose.training.pretrained import quiet, refuse_without_weights

CHARACTERS = 4  # a token, where no tokeniser is at hand
KEYS = ("CONTRAPOSE_API_KEY", "OPENAI_API_KEY")  # environment variables that may hold an endpoint's key


class Generator(Protocol):
    """What writes: prompts to as many texts. `identity` tells it from others in the cache of answers; `most_tokens` bounds an answer.

    A generator may also have `score(pairs) -> floats`, from 0 to 5, which is then asked in place of the prompt for scores.
    """

    identity: str
    most_tokens: int | None

    def generate(self, prompts: Sequence[str], against: Sequence[str] | None = None) -> list[str]:
        """One text a prompt; `against`: the prompts of the opposite instruction, for contrastive generation."""

    def count_tokens(self, texts: Sequence[str]) -> int: ...


class FunctionGenerator:
    """Any function from a list of prompts to a list of texts."""

    most_tokens = None

    def __init__(self, function: Callable[[list[str]], Sequence[str]], identity: str = "function") -> None:
        self.function, self.identity = function, identity

    def generate(self, prompts: Sequence[str], against: Sequence[str] | None = None) -> list[str]:
        refuse_contrast(against, "a function")
        return list(self.function(list(prompts)))

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(map(len, texts)) // CHARACTERS


class ModelGenerator:
    """A causal or sequence-to-sequence model of transformers, by folder or Hub name, decoding greedily.

    With `contrast` above 0 prompts go through one at a time, since the two of a pair differ in length. A chat model's own template is used.
    Raises what `find` raises, WeightsPickled, ModelFolderInvalid, GeneratorFailed.
    """

    def __init__(self, name: str, *, most_tokens: int = 256, contrast: float = 0.0, plausible: float = 0.1) -> None:
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

        folder, _ = find(name)
        refuse_without_weights(folder)
        here = {"local_files_only": True, "trust_remote_code": False}
        with quiet(), torch.random.fork_rng():
            try:
                self.has_decoder = bool(AutoConfig.from_pretrained(folder, **here).is_encoder_decoder)
                kind = AutoModelForSeq2SeqLM if self.has_decoder else AutoModelForCausalLM
                self.model = kind.from_pretrained(folder, use_safetensors=True, **here)
            except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
                raise GeneratorFailed(f"{folder} holds no generator of text: {str(error).splitlines()[0]}") from None
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(folder, self.model.get_input_embeddings().num_embeddings)
        self.tokenizer.padding_side = "right" if self.has_decoder else "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.most_tokens, self.contrast, self.plausible = most_tokens, contrast, plausible
        weights = " ".join(file_digest(file) for file in sorted(folder.glob("*.safetensors")))
        self.identity = f"{weights} {most_tokens} {contrast} {plausible}"

    def generate(self, prompts: Sequence[str], against: Sequence[str] | None = None) -> list[str]:
        if self.contrast == 0 or against is None:
            return self._written(self._tokens(prompts))
        from transformers import LogitsProcessorList

        found = []
        for prompt, other in zip(prompts, against, strict=True):
            tokens = self._tokens([prompt])
            start = 0 if self.has_decoder else tokens["input_ids"].shape[1]
            opposite = self._tokens([other])["input_ids"]
            processor = AgainstOpposite(self.model, opposite, start, contrast=self.contrast, plausible=self.plausible)
            found += self._written(tokens, logits_processor=LogitsProcessorList([processor]))
        return found

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"])

    def _tokens(self, prompts: Sequence[str]) -> Any:
        if getattr(self.tokenizer, "chat_template", None):
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
            prompts = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        encoded = self.tokenizer(list(prompts), padding=True, return_tensors="pt", return_token_type_ids=False)
        return encoded.to(self.model.device)

    def _written(self, tokens: Any, **options: Any) -> list[str]:
        with torch.inference_mode(), quiet():
            ids = self.model.generate(
                **tokens, max_new_tokens=self.most_tokens, do_sample=False, num_beams=1,
                pad_token_id=self.tokenizer.pad_token_id, **options,
            )  # fmt: skip
        start = 0 if self.has_decoder else tokens["input_ids"].shape[1]
        return self.tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)


class ChatEndpoint:
    """An OpenAI-compatible endpoint: POST `address`/chat/completions, temperature 0, a few prompts at once.

    The key, where one is needed, stands in the environment (CONTRAPOSE_API_KEY or OPENAI_API_KEY) and is written nowhere. Too many requests
    and failures of the server are tried again, `tries` times in all, after `wait` seconds and then twice as long each time.
    """

    def __init__(
        self,
        address: str,
        model: str | None,
        *,
        most_tokens: int = 256,
        tries: int = 4,
        wait: float = 1.0,
        at_once: int = 4,
    ) -> None:
        if model is None:
            raise GeneratorFailed(f"{address} serves models by name; say which: --set generator_model=NAME.")
        self.address = address.rstrip("/") + "/chat/completions"
        self.model, self.most_tokens, self.tries, self.wait, self.at_once = model, most_tokens, tries, wait, at_once
        self.identity = f"{address} {model} {most_tokens}"

    def generate(self, prompts: Sequence[str], against: Sequence[str] | None = None) -> list[str]:
        refuse_contrast(against, "an endpoint")
        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(self.ask, prompts))

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(map(len, texts)) // CHARACTERS

    def ask(self, prompt: str) -> str:
        """The answer to one prompt. Raises GeneratorFailed."""
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        said = json.dumps({**body, "max_tokens": self.most_tokens}).encode()
        for again in range(self.tries):
            try:
                with urllib.request.urlopen(urllib.request.Request(self.address, said, headers), timeout=300) as answer:
                    return str(json.load(answer)["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                failed = f"status {error.code}: {error.read(200).decode(errors='replace')}"
                if error.code != 429 and error.code < 500:
                    break
            except (OSError, http.client.HTTPException) as error:  # no connection, or none in time
                failed = str(getattr(error, "reason", error))
            except (ValueError, KeyError, IndexError, TypeError):
                raise GeneratorFailed(
                    f"{self.address} answers, but not as an OpenAI-compatible endpoint does."
                ) from None
            if again + 1 < self.tries:
                time.sleep(self.wait * 2**again)
        raise GeneratorFailed(f"{self.address} did not answer ({failed}). Answers so far are kept.")


def refuse_contrast(against: Sequence[str] | None, what: str) -> None:
    if against is not None:
        raise ArgumentInvalid(
            f"contrast needs the logits of the generator, which {what} does not give; take a model's folder, or contrast=0."
        )


def open_generator(name: str, model: str | None, *, most_tokens: int, contrast: float, plausible: float) -> Generator:
    """A generator by address, folder or Hub name."""
    if name.startswith(("http://", "https://")):
        return ChatEndpoint(name, model, most_tokens=most_tokens)
    return ModelGenerator(name, most_tokens=most_tokens, contrast=contrast, plausible=plausible)


def as_generator(given: Any) -> Generator:
    """What a user hands over: a function, or an object with `generate`."""
    return given if hasattr(given, "generate") else FunctionGenerator(given)
