"""What tests of several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.text.tiny import write_tiny_bert

os.environ.setdefault(
    "TOKENIZERS_PARALLELISM", "false"
)  # children are forked and spawned; and there is little to tokenise

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the processor; Triton reads it once, when it is imported


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `write_tiny_bert` writes."""
    return write_tiny_bert(tmp_path_factory.mktemp("models"))
