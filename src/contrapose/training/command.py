"""The command line that repeats a run: stands in config.yaml, in the report, and in what a stopped run says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from contrapose.training.settings import MethodSettings


def command_of(config: Mapping[str, Any], out: Path, defaults: MethodSettings, options: Mapping[str, FieldInfo]) -> str:
    """The command of a run's configuration, settings at their default left out; `options`: the encoder's, by name, and "column.name" for those of
    an encoder within that of a column."""
    words = ["contrapose", "train", config["method"], *words_of_start(config, options)]
    usual = defaults.model_dump(mode="json")
    for name, value in config["settings"].items():
        if value != usual[name]:
            words += ["--set", f"{name}={'' if value is None else value}"]
    return shlex.join([*words, *words_of_end(config, out)])


def command_of_comparison(
    methods: Sequence[str], config: Mapping[str, Any], out: Path, options: Mapping[str, FieldInfo]
) -> str:
    """The command of a comparison; `config` has "settings" and "grid" as they were given, and otherwise what a run's has."""
    words = ["contrapose", "compare", *methods, *words_of_start(config, options)]
    for name, value in config["settings"].items():
        words += ["--set", f"{name}={'' if value is None else value}"]
    for name, values in config["grid"].items():
        words += ["--grid", f"{name}={','.join(map(str, values))}"]
    return shlex.join([*words, "--seeds", str(config["seeds"]), *words_of_end(config, out)])


def words_of_start(config: Mapping[str, Any], options: Mapping[str, FieldInfo]) -> list[str]:
    words = ["--data", config["data"]["source"], "--encoder", config["encoder"]["name"]]
    for needed, yours in config["data"]["columns"].items():
        words += ["--map", f"{needed}={yours}"]
    words += words_of_options(config["encoder"], options, "encoder.")
    for column, record in config["encoder"].get("encoders", {}).items():  # of several, what is not said of all
        own = {name: value for name, value in record.items() if name not in config["encoder"]}
        words += words_of_options(own, options, f"encoder.{column}.")
        within = {f"{column}.{name}": value for name, value in record.get("encoder", {}).items()}
        words += words_of_options(within, options, "encoder.")
    return words


def words_of_options(record: Mapping[str, Any], options: Mapping[str, FieldInfo], prefix: str) -> list[str]:
    """What a record says of an encoder otherwise than it would be by default; lists with commas."""
    words = []
    for name, value in record.items():
        if name in options and value not in (None, options[name].default) and value != []:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            words += ["--set", f"{prefix}{name}={shown}"]
    return words


def words_of_end(config: Mapping[str, Any], out: Path) -> list[str]:
    words = []
    for option in ("select", "on"):
        for protocol, source in (config[option] or {}).items():
            words += [f"--{option}", f"{protocol}={source}"]
    if config["data"]["drop_empty"]:
        words.append("--drop-empty")
    return [*words, "--out", str(out)]


def how_to_go_on(config: Mapping[str, Any], out: Path) -> str:
    """What to do with a run that was stopped."""
    if config.get("from_python"):
        return f"Go on with the same call: contrapose.train(…, out={str(out)!r}, resume=True)."
    return f"Go on with: contrapose train --resume --out {shlex.quote(str(out))}"
