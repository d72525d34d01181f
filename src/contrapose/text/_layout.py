"""What lies where in a model folder: of transformers, of sentence-transformers, or one of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrapose.errors import ModelFolderInvalid
from contrapose.text._pooling import Pooling

INNER = "0_Transformer"  # where sentence-transformers used to keep the transformer; we do where it must not load one of ours
POOLING_OF: dict[str, Pooling] = {
    "cls": "cls_before_pooler",
    "mean": "avg",
}  # the two that sentence-transformers has as well
MODE_OF = {pooling: mode for mode, pooling in POOLING_OF.items()}


@dataclass(frozen=True)
class Layout:
    """Where a folder's transformer lies, and what the folder says about its use; None where it says nothing."""

    transformer: Path
    pooling: Pooling | None = None
    max_tokens: int | None = None
    normalise: bool = True
    head: Mapping[str, Any] | None = None  # on the pooled state; its weights lie in `folder`
    folder: Path | None = None


def read_layout(folder: Path, transformer_alone: bool = False) -> Layout:
    """Read a folder; `transformer_alone` passes over what stands after the transformer.

    Raises ModelFolderInvalid for damaged JSON, and for a sentence-transformers model with parts that are not ours.
    """
    if (folder / "model" / "contrapose.json").is_file():  # a run
        folder = folder / "model"
    recorded = list(_json(folder / "contrapose.json").get("encoders", {}).values())
    if len(recorded) == 1:
        facts = recorded[0]
        if facts.get("domains") is not None:
            raise ModelFolderInvalid(
                f"{folder} routes texts by their domain ({', '.join(facts['domains'])}), so it is no encoder to start from; "
                "save the encoder of one of them first: load(FOLDER).encoder().plain(DOMAIN).save(NEW_FOLDER)."
            )
        if facts.get("prompt") is not None and not transformer_alone:
            raise ModelFolderInvalid(
                f"{folder} puts its texts into a prompt, so it is no encoder to start from as it is; "
                "give encoder.pooling (avg, say) to take its transformer alone."
            )
        head = None if transformer_alone else facts.get("head")
        return Layout(_transformer_in(folder), facts["pooling"], facts["max_tokens"], facts["normalise"], head, folder)
    if not (folder / "modules.json").is_file():
        return Layout(_transformer_in(folder))
    modules = {
        str(entry["type"]).rsplit(".", 1)[-1]: folder / entry["path"] for entry in _json(folder / "modules.json", [])
    }
    transformer = modules.pop("Transformer", _transformer_in(folder))
    max_tokens = _json(transformer / "sentence_bert_config.json").get("max_seq_length")
    max_tokens = max_tokens or _json(transformer / "tokenizer_config.json").get("model_max_length")  # since version 6
    if transformer_alone:
        return Layout(transformer, None, max_tokens)
    modes = _pooling_modes(_json(modules.pop("Pooling", folder / "1_Pooling") / "config.json"))
    normalise = modules.pop("Normalize", None) is not None
    if foreign := [*modules, *_foreign(folder, transformer, modes)]:
        raise ModelFolderInvalid(
            f"{folder} is a sentence-transformers model with {', '.join(foreign)}, which contrapose does not have; "
            "give encoder.pooling (avg, say) to take its transformer alone."
        )
    return Layout(transformer, POOLING_OF[modes[0]], max_tokens, normalise)


def write_sentence_transformers(folder: Path, dim: int, pooling: Pooling, max_tokens: int, normalise: bool) -> None:
    """What makes a folder with a transformer and its tokeniser a sentence-transformers model, of version 2 and later."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": number, "name": str(number), "path": paths[number], "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    modes = {
        f"pooling_mode_{mode}": mode.startswith(MODE_OF[pooling]) for mode in ("cls_token", "mean_tokens", "max_tokens")
    }
    for path in paths[1 : len(kinds)]:
        (folder / path).mkdir(exist_ok=True)
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **modes})


def _transformer_in(folder: Path) -> Path:
    return (
        folder / INNER
        if (folder / INNER / "config.json").is_file() and not (folder / "config.json").is_file()
        else folder
    )


def _pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """sentence-transformers' names: one key since its version 6, a true or false each before."""
    if mode := config.get("pooling_mode"):
        return [mode] if isinstance(mode, str) else list(mode)
    switched = [
        key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on
    ]
    return [mode.removesuffix("_token").removesuffix("_tokens") for mode in switched]


def _foreign(folder: Path, transformer: Path, modes: list[str]) -> list[str]:
    foreign = []
    if len(modes) != 1 or modes[0] not in POOLING_OF:
        foreign.append(f"pooling {' + '.join(modes) or 'unknown'}")
    if _json(transformer / "sentence_bert_config.json").get("do_lower_case"):
        foreign.append("lower-casing")
    if _json(folder / "config_sentence_transformers.json").get("default_prompt_name"):
        foreign.append("a default prompt")
    return foreign


def _json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or `default` (an empty mapping) where there is none."""
    if not path.is_file():
        return {} if default is None else default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFolderInvalid(f"{path} is not JSON ({error}); fetch or export the model again.") from None


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
