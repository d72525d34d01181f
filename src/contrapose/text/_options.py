"""What a user may say about an encoder of texts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class EncoderOptions(BaseModel):
    """What `--set encoder.NAME=VALUE` can say about a text encoder."""

    model_config = ConfigDict(extra="forbid")

    layers: NonNegativeInt | None = Field(
        None, description="The first so many transformer blocks alone; 0: the embeddings."
    )
    pooling: str | None = Field(
        None,
        description="cls_before_pooler, avg, avg_top2, avg_first_last, avg_first_last_embedding, cls or as concat_top4_mean.",
    )
    max_tokens: PositiveInt | None = Field(None, description="Texts are cut to so many tokens, special ones included.")
    revision: str | None = Field(None, description="The commit of a model of the Hub.")
