"""The training steps of papers' own code, driven from their checkouts: imported where they lie, never copied, and mended only to start at all.

A driver runs `steps` steps of BATCH rows and calls `press()` after each. What it had to change stands in its docstring, which goes into the
result. Where the official step is a loop of transformers' Trainer, its model and its collation are called, with the Trainer's AdamW, clipping
and linear decay around them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

BATCH, MAX_TOKENS, RATE, TEMPERATURE = 64, 32, 1e-4, 0.05
Press = Callable[[], None]


@dataclass(frozen=True)
class Inputs:
    """What both sides learn from, and the folder of the encoder that both start from."""

    encoder: Path
    texts: list[str]
    pairs: list[tuple[str, str, float]]
    triplets: list[tuple[str, str, str]]
    definitions: list[tuple[str, str]]  # entry and definition
    domains: list[tuple[str, str, str]]  # two texts and their domain


def whitenedcse(inputs: Inputs, steps: int, press: Press) -> None:
    """Its models.py does not compile (a positional argument after a keyword) and imports two modules that are not there: these three lines are
    mended in memory, and the layer's engine is svd, since torch has no symeig any more. Padded to the longest text of a batch."""
    source = Path(sys.path[0], "whitenedcse/models.py").read_text(encoding="utf-8")
    for wrong, right in (
        ("num_groups=128, config.num_pos)", "num_groups=128, num_pos=config.num_pos, engine='svd')"),
        ("from whitenedcse.whiten_norm import *", ""),
        ("from whitenedcse.whitening import *", ""),
    ):
        assert source.count(wrong) == 1, f"{wrong!r} is not there: another commit?"
        source = source.replace(wrong, right)
    official = ModuleType("whitenedcse_models")
    exec(compile(source, "whitenedcse/models.py", "exec"), official.__dict__)
    contrastive(official.BertForCL, inputs, [(text,) * 3 for text in inputs.texts], steps, press, num_pos=3)


def debcse(inputs: Inputs, steps: int, press: Press) -> None:
    """DebCSE has no public code. Its training step is that of supervised SimCSE on triplets, so SimCSE's is measured: without choosing partners."""
    contrastive(importlib.import_module("simcse.models").BertForCL, inputs, inputs.triplets, steps, press)


def multicsr(inputs: Inputs, steps: int, press: Press) -> None:
    """As it stands, with the reference in training mode and with gradient. Padded to the longest text of a batch."""
    contrastive(importlib.import_module("simcse.models").BertForCL, inputs, inputs.triplets, steps, press)


def defsent_plus(inputs: Inputs, steps: int, press: Press) -> None:
    """The whole loop of TrainEncoder.py on files as its GenerateEncoderInput.py makes them, every definition padded to the limit. `.cuda()` does
    nothing, and AdamW is torch's, since transformers has none any more. Entries are random numbers."""
    from transformers import BertModel, RobertaForMaskedLM  # noqa: F401 (transformers puts another module in its place when these are first asked for)

    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_: self
    sys.modules["transformers"].AdamW = torch.optim.AdamW
    official = importlib.import_module("TrainEncoder")
    entries = list(dict.fromkeys(entry for entry, _ in inputs.definitions))
    number = {entry: place for place, entry in enumerate(entries)}
    rows = inputs.definitions[: steps * BATCH]
    model = BertModel.from_pretrained(inputs.encoder)
    encoded = tokenizer(inputs)(
        [text for _, text in rows], padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    folder = inputs.encoder.parent
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        torch.save(encoded[name], folder / f"{name}.pth")
    torch.save(torch.tensor([number[entry] for entry, _ in rows]), folder / "entry_id_labels.pth")
    torch.save(torch.randn(len(entries), model.config.hidden_size), folder / "entries.pth")
    scheduled = official.get_linear_schedule_with_warmup

    def pressed(*given: Any, **named: Any) -> Any:
        schedule = scheduled(*given, **named)
        step = schedule.step
        schedule.step = lambda: (step(), press())
        return schedule

    official.get_linear_schedule_with_warmup = pressed
    places = str(folder / "entries.pth"), str(folder)
    official.train_and_save_encoder(*places, "bert-base-uncased", model, str(folder / "saved"), "mean", BATCH, RATE)


def dse(inputs: Inputs, steps: int, press: Press) -> None:
    """Its DSETrainer.batch_update with its own BERT, BertAdam and siamese head (concat_top_mean of 4 layers, 512, 1), regression with a = 0.5. Every
    sentence padded to the limit. Packages that it imports and the step does not use are stand-ins."""
    sys.meta_path.append(StandIns("boto3", "botocore", "matplotlib"))
    bert = importlib.import_module("pytorch_pretrained_bert")
    siamese = importlib.import_module("models.dse_siamese_classifier")
    config = bert.BertConfig.from_json_file(str(inputs.encoder / "config.json"))
    sequence = bert.BertForSequenceClassification(config, num_labels=1)
    load(sequence.bert, inputs.encoder)
    student = importlib.import_module("models.dse_model").DSEModel(sequence, -1, "concat_top_mean", 4)
    head = siamese.CombineSiameseHead(student.output_size, fc_dims=[512, 1], siamese_head_type="concat")
    model = siamese.DSESiameseClassifier(student, head)
    optimizer = bert.BertAdam(list(model.parameters()), lr=RATE, warmup=0.1, t_total=steps)
    trainer = importlib.import_module("train.trainers").DSETrainer(
        model.train(), optimizer, nn.MSELoss(), distillation_coeff=0.5
    )
    sides = [
        tokenizer(inputs)(side, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        for side in ([pair[0] for pair in inputs.pairs], [pair[1] for pair in inputs.pairs])
    ]
    scores = torch.tensor([pair[2] for pair in inputs.pairs])[:, None]
    columns = [side[name] for side in sides for name in ("input_ids", "attention_mask")]
    data = torch.utils.data.TensorDataset(*columns, scores, scores + 0.1)
    for number, batch in enumerate(
        batches(torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True), steps)
    ):
        trainer.batch_update(number, batch)
        press()


def moe_embeddings(inputs: Inputs, steps: int, press: Press) -> None:
    """Its ModernBERT with an expert a domain, of MiniLM's size and with random weights on both sides, for it takes no other encoder. Loss mnr_plus, its
    collator, which tokenises within the step. reference_compile is off; "default" rotary embeddings are put back into transformers' table."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ROPE_INIT_FUNCTIONS["default"] = plain_rotary
    sys.meta_path.append(StandIns("torchinfo"))
    modern = importlib.import_module("models.modeling_modern_bert")
    moe = importlib.import_module("models.modeling_moe_bert")
    config = modern.ModernBertConfig.from_pretrained(
        inputs.encoder, reference_compile=False, loss_type="mnr_plus", attn_implementation="eager"
    )
    config.rope_scaling = None  # transformers 5 has a mapping without a type here
    names = sorted({domain for *_, domain in inputs.domains})
    tokens = [f"[{name}]" for name in names]
    config.num_experts = len(names)
    model, words = importlib.import_module("models.utils").add_new_tokens(
        modern.ModernBertModel(config), tokenizer(inputs), tokens
    )
    model = moe.MoEBertForSentenceSimilarity(config, moe.convert_to_moe_bert(config, model)).train()
    collate = importlib.import_module("data.data_collators").get_data_collator(words, tokens, max_length=MAX_TOKENS)
    rows = [(one, other, names.index(domain), 1) for one, other, domain in inputs.domains]
    descend(model, loader(rows, collate), lambda batch: model(**batch).loss, steps, press)


DRIVERS: dict[str, tuple[str, Callable[[Inputs, int, Press], None]]] = {
    "whitenedcse": ("WhitenedCSE", whitenedcse),
    "debcse": ("SimCSE", debcse),
    "multicsr": ("MultiCSR", multicsr),
    "defsent_plus": ("DefSent-Plus", defsent_plus),
    "dse": ("Distilled-Sentence-Embedding", dse),
    "moe_embeddings": ("Mixture-of-Experts-Sentence-Similarity", moe_embeddings),
}


def contrastive(
    kind: Any, inputs: Inputs, rows: Sequence[tuple[str, ...]], steps: int, press: Press, **config: Any
) -> None:
    """Descendants of SimCSE: tokenised once, padded by the batch, several texts a row, head cls. Their `init_weights` asks transformers 5 for a table of
    tied weights that only `post_init` makes; an empty one stands in."""
    from transformers import BertConfig, PreTrainedModel

    PreTrainedModel.all_tied_weights_keys = {}

    arguments = SimpleNamespace(
        pooler_type="cls", temp=TEMPERATURE, do_mlm=False, hard_negative_weight=0, mlp_only_train=True, phi=0.95
    )
    arguments.pretrained_model_name_or_path = str(inputs.encoder)
    sizes = BertConfig.from_pretrained(inputs.encoder)
    for name, value in config.items():
        setattr(sizes, name, value)
    model = kind(sizes, model_args=arguments).train()
    for place in ("bert", "pretrained_model"):
        if hasattr(model, place):
            load(getattr(model, place), inputs.encoder)
    words, texts = tokenizer(inputs), [text for row in rows for text in row]
    encoded = words(texts, max_length=MAX_TOKENS, truncation=True)
    views = len(rows[0])

    def collate(numbers: list[int]) -> dict[str, Tensor]:
        flat = [
            {name: encoded[name][views * row + view] for name in encoded} for row in numbers for view in range(views)
        ]
        return {
            name: column.view(len(numbers), views, -1) for name, column in words.pad(flat, return_tensors="pt").items()
        }

    loss = lambda batch: model(**batch, return_dict=True).loss  # noqa: E731
    descend(model, loader(range(len(rows)), collate), loss, steps, press)


def descend(model: nn.Module, data: Iterable[Any], loss: Callable[[Any], Tensor], steps: int, press: Press) -> None:
    """What transformers' Trainer does around a model, in float32."""
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    for batch in batches(data, steps):
        loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        press()


def loader(rows: Any, collate: Callable[[list[Any]], Any]) -> Iterable[Any]:
    return torch.utils.data.DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=collate)


def batches(data: Iterable[Any], steps: int) -> Iterable[Any]:
    """So many batches, over as many epochs as it takes."""
    done = 0
    while True:
        for batch in data:
            if done == steps:
                return
            done += 1
            yield batch


def tokenizer(inputs: Inputs) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(inputs.encoder)


def load(model: nn.Module, folder: Path) -> None:
    """The encoder's weights, as far as the model has them: a pooler may be missing on either side."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)


def plain_rotary(_: Any, device: Any, *, dim: int, base: float) -> tuple[Tensor, float]:
    """Frequencies without scaling, as transformers had them under "default"."""
    return 1.0 / base ** (torch.arange(0, dim, 2, device=device).float() / dim), 1.0


def commit(checkout: Path) -> str:
    """The commit of a checkout, from its .git, or from a file COMMIT in it."""
    if (checkout / "COMMIT").is_file():
        return (checkout / "COMMIT").read_text(encoding="utf-8").strip()
    found = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of these packages, where they are not installed: any name in them is an empty class."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        ours = name.split(".")[0] in self.packages
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = stand_in


def stand_in(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (Exception,), {})
