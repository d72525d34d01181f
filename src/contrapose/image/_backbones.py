"""Networks from pixels to features: untrained ones by name, and those of a folder or of the Hub."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrapose.errors import (
    EncoderUnknown,
    ImageEncoderMisfit,
    WeightsBroken,
    nearest,
)
from contrapose.training.pretrained import quiet, refuse_without_weights

SMALL = 64  # pixels: below, a stem that halves the sides twice before the first block leaves too little to see
FROM_HUB = ["*.json", "model*.safetensors"]


@dataclass(frozen=True)
class Plan:
    """An untrained network: what builds it anew, its random weights included.

    family: "resnet", "vit" or "mlp". width, depth: channels of the first stage and blocks a stage; hidden size and layers; units of the
    first layer and layers. stem: "small", one 3 x 3 convolution of stride 1 (SimCLR on CIFAR-10), or "large", a 7 x 7 one of stride 2 and a
    maximum over 3 x 3 of stride 2; of a ResNet alone. seed: of the weights.
    """

    family: str
    width: int
    depth: int
    stem: str | None = None
    block: str = "basic"
    seed: int = 0


PLANS = {
    "resnet": Plan("resnet", 32, 2),
    "resnet-18": Plan("resnet", 64, 2),
    "resnet-50": Plan("resnet", 64, 0, block="bottleneck"),
    "vit-tiny": Plan("vit", 192, 12),
    "mlp": Plan("mlp", 256, 2),
}
DEFAULT = "resnet"


def build(plan: Plan, size: int, channels: int) -> nn.Module:
    """The untrained network of a plan, for images (channels, size, size); its weights depend on the plan's seed alone.

    Raises ImageEncoderMisfit where the plan and the size do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return {"resnet": _resnet, "vit": _vit, "mlp": _mlp}[plan.family](plan, size, channels)


def _resnet(plan: Plan, size: int, channels: int) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.resnet.modeling_resnet import ResNetConvLayer

    wide = 4 if plan.block == "bottleneck" else 1
    model = ResNetModel(
        ResNetConfig(
            num_channels=channels,
            embedding_size=plan.width,
            hidden_sizes=[plan.width * wide * 2**stage for stage in range(4)],
            depths=[plan.depth] * 4 if plan.depth else [3, 4, 6, 3],
            layer_type=plan.block,
        )
    )
    if plan.stem == "small":
        model.embedder.embedder = ResNetConvLayer(channels, plan.width, kernel_size=3, stride=1)
        nn.init.kaiming_normal_(model.embedder.embedder.convolution.weight, mode="fan_out", nonlinearity="relu")
        model.embedder.pooler = nn.Identity()
    return model


def _vit(plan: Plan, size: int, channels: int) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    if size % 8 or (plan.width % 64 and plan.width % 2):
        raise ImageEncoderMisfit(
            f"encoder.size={size}, encoder.width={plan.width}: this vision transformer sees 8 x 8 patches, so its size is a multiple of 8 and "
            "its width even."
        )
    config = ViTConfig(
        hidden_size=plan.width,
        num_hidden_layers=plan.depth,
        num_attention_heads=max(1, plan.width // 64) if plan.width % 64 == 0 else 2,
        intermediate_size=4 * plan.width,
        image_size=size,
        patch_size=size // 8,
        num_channels=channels,
    )
    return ViTModel(config, add_pooling_layer=False)


def _mlp(plan: Plan, size: int, channels: int) -> nn.Module:
    return Mlp(channels * size * size, plan.width, plan.depth)


class Mlp(nn.Sequential):
    """Pixels in a row → `width` → … → `width` / 2, with BatchNorm and ReLU after each of `depth` layers: for images of 8 to 16 pixels."""

    def __init__(self, pixels: int, width: int, depth: int) -> None:
        widths = [pixels, *[width] * (depth - 1), max(1, width // 2)]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers)


def planned(name: str, size: int, options: Mapping[str, Any]) -> Plan | None:
    """The plan of a name, with what the user chose; None for a name of another kind."""
    if name not in PLANS:
        return None
    given = {
        key: value for key, value in options.items() if key in ("width", "depth", "stem", "seed") and value is not None
    }
    plan = Plan(**{**asdict(PLANS[name]), **given})
    if plan.family != "resnet" and plan.stem is not None:
        raise ImageEncoderMisfit(f"encoder.stem={plan.stem}: '{name}' has no stem to choose; leave the setting out.")
    if plan.family == "resnet" and plan.stem is None:
        plan = Plan(**{**asdict(plan), "stem": "small" if size < SMALL else "large"})
    return plan


def pooled(output: Any, pooling: str) -> Tensor:
    """(b, d) of a network's output: vectors as they are, maps (b, d, h, w) by their mean, tokens (b, t, d) by the first one ("cls") or the mean ("avg").

    `output` is a tensor, or has `last_hidden_state`, as transformers' models do.
    """
    states = output if isinstance(output, Tensor) else output.last_hidden_state
    if states.ndim == 2:
        return states
    if states.ndim == 4:
        return states.mean(dim=(2, 3))
    if states.ndim == 3:
        return states[:, 0] if pooling == "cls" else states.mean(dim=1)
    raise ImageEncoderMisfit(
        f"the module's output has shape {tuple(states.shape)}; it is (b, d), a map (b, d, h, w), or tokens (b, t, d)."
    )


def find(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a pretrained network, and its revision where it comes from the Hub. Raises EncoderUnknown."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path, None
    near = nearest(
        name, [*PLANS, *difflib.get_close_matches(path.name, [each.name for each in path.parent.glob("*/")])]
    )
    if path.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        what = f"{path} is a file; give the folder that holds it" if path.is_file() else f"there is no folder {path}"
        raise EncoderUnknown(f"As an encoder of images, {what}; {near}")
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=FROM_HUB)
    except (OSError, errors.HfHubHTTPError, errors.HFValidationError):
        raise EncoderUnknown(
            f"'{name}' is neither a folder nor an untrained network, and the Hub has none or cannot be reached; {near}"
        ) from None
    return Path(folder), Path(folder).name


def load(folder: Path) -> nn.Module:
    """transformers' model of a folder, in float32. No pickle is loaded and no code is run. Raises ModelFolderInvalid, WeightsPickled, WeightsBroken."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    refuse_without_weights(folder)
    here = {"local_files_only": True, "trust_remote_code": False}
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            config = AutoConfig.from_pretrained(folder, **here)
            config = getattr(config, "vision_config", config)  # of a model of images and texts
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **here
            )
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise WeightsBroken(f"The model in {folder} cannot be read: {reason}. Fetch or export it again.") from None
    missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
    if missing:
        raise WeightsBroken(
            f"The weights in {folder} lack {len(missing)} of the tensors that its config.json calls for (first: {missing[0]}); they would be random."
        )
    if isinstance(getattr(model, "pooler", None), nn.Module) and any(True for _ in model.pooler.parameters()):
        model.pooler = None  # trained for another task, and not read by us
    return model
