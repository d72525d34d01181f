"""The command that stands in config.yaml."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

from contrapose.cli.options import settings_of
from contrapose.text.encoder import EncoderOptions
from contrapose.text.pairs import Pairs
from contrapose.training.command import command_of, how_to_go_on
from contrapose.training.settings import parse_settings

ENCODER = {"name": "minilm", "revision": "abc", "layers": 4, "pooling": None, "max_tokens": 48, "normalise": True}


def configuration(settings: Pairs.Settings) -> dict:
    return {
        "method": "pairs",
        "data": {"source": "my pairs.csv", "columns": {"anchor": "english"}, "drop_empty": True},
        "encoder": ENCODER,
        "settings": settings.model_dump(mode="json"),
        "select": None,
        "on": {"retrieval": "test.csv"},
    }


def test_the_settings_of_the_command_are_those_of_the_run() -> None:
    chosen = Pairs.Settings(clip_norm=None, steps=7, temperature=0.1, learn_temperature=True, patience=2)
    words = shlex.split(
        command_of(configuration(chosen), Path("runs/a b"), Pairs.Settings(), EncoderOptions.model_fields)
    )
    given = [value for option, value in itertools.pairwise(words) if option == "--set"]
    own = {name: value for name, value in settings_of(given).items() if not name.startswith("encoder.")}
    assert parse_settings(Pairs.Settings, own, owner="pairs") == chosen
    assert own.keys() == {"clip_norm", "steps", "temperature", "learn_temperature", "patience"}


def test_the_command_names_data_columns_encoder_and_folder() -> None:
    words = shlex.split(
        command_of(configuration(Pairs.Settings()), Path("runs/a b"), Pairs.Settings(), EncoderOptions.model_fields)
    )
    expected = """contrapose train pairs --data 'my pairs.csv' --encoder minilm --map anchor=english --set encoder.revision=abc
        --set encoder.layers=4 --set encoder.max_tokens=48 --on retrieval=test.csv --drop-empty --out 'runs/a b'"""
    assert words == shlex.split(expected)


def test_a_run_on_data_from_python_goes_on_from_python() -> None:
    said = how_to_go_on({"from_python": ["data"]}, Path("runs/a"))
    assert said == "Go on with the same call: contrapose.train(…, out='runs/a', resume=True)."
    assert how_to_go_on({"from_python": None}, Path("runs/a b")).endswith("contrapose train --resume --out 'runs/a b'")
