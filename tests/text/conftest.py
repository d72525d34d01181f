from __future__ import annotations

from pathlib import Path

import pytest

from contrapose.text.encoder import TextEncoder


@pytest.fixture
def encoder(tiny_bert: Path) -> TextEncoder:
    return TextEncoder.open(str(tiny_bert), max_tokens=16)
