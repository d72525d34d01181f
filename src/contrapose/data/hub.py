"""Datasets of the Hugging Face Hub."""

from __future__ import annotations

from contrapose.data.table import Table
from contrapose.errors import HubUnavailable


def hub_table(address: str) -> Table:
    """The dataset "hf:owner/name" or "hf:owner/name:split", through the Hub's own cache.

    Without a split it is "train" or the only one. With HF_HUB_OFFLINE=1 the cache alone is used. Raises HubUnavailable.
    """
    import datasets
    from huggingface_hub import HfApi, constants

    name, _, split = address.removeprefix("hf:").partition(":")
    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(
                name, timeout=10
            )  # without network this fails at once; load_dataset tries for half a minute
        loaded = datasets.load_dataset(name, split=split or None)
    except Exception as error:  # of many kinds: network, name, access, split, a file that does not parse
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise HubUnavailable(
            f"'{address}' could not be loaded from the Hugging Face Hub: {reason}. "
            "Check the name and the network, or give a file."
        ) from error
    if not split and len(loaded) > 1 and "train" not in loaded:
        raise HubUnavailable(
            f"'{address}' has the splits {', '.join(loaded)}: name one, {address}:{next(iter(loaded))}."
        )
    if not split:
        loaded = loaded.get("train") or next(iter(loaded.values()))
    return Table(loaded.with_format("arrow")[:], source=address)
