"""What the server of `tests.processes` imports before it forks: all that a training, its export and its report load when they are called."""

from __future__ import annotations

import gc
import importlib
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the library is imported

for name in (
    "contrapose.api",
    "contrapose.cli.app",
    "contrapose.export.checked",
    "contrapose.text.evaluation",
    "datasets",
    "jinja2",
    "plotly.offline",
    "pytest",
    "sentence_transformers",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.model_selection",
    "tests.text.tiny",
    "tests.torchrun",
    "tests.training.toys",
    "torch.distributed.launcher",
    "torch.utils.tensorboard",
    "transformers",
):
    importlib.import_module(name)

gc.freeze()  # else each fork's garbage collector would visit, and so copy, every page of these
