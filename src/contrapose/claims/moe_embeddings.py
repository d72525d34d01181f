"""MoE embeddings: an expert MLP for each domain beats one shared encoder, and one block of experts recovers most of it."""

from __future__ import annotations

from functools import partial

from contrapose.claims._domain_pairs import (
    AREA,
    BEST_F1,
    MISROUTED,
    WORDNET_SISTERS,
    ConflictTask,
    SisterTask,
    words_through_blocks,
)
from contrapose.claims._sentences import four_layers
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

claim = Claim(
    method="moe_embeddings",
    says="One encoder serves several domains better when the MLP of its blocks has a copy for each domain and every text goes through that of its "
    "own; such a block in the middle alone recovers most of the gain.",
    source=WORDNET_SISTERS,
    measures=(AREA, BEST_F1, MISROUTED),
    tuned_by=AREA.name,
    arms=(
        Arm("one shared encoder", "moe_embeddings", {"experts": "none"}),
        Arm("experts in all blocks", "moe_embeddings", {"experts": "all"}),
        Arm("experts in the middle block", "moe_embeddings", {"experts": "middle"}),
    ),
    statements=(
        Statement(
            "Experts in all blocks beat one shared encoder.",
            AREA.name,
            "experts in all blocks",
            "one shared encoder",
            least=0.01,
        ),
        Statement(
            "Experts in the middle block alone beat one shared encoder.",
            AREA.name,
            "experts in the middle block",
            "one shared encoder",
            least=0.01,
        ),
    ),
    experiments=(
        Experiment(
            "topic against style",
            "Generated bags of words in which two domains contradict each other: pairs of one agree on the topic, of the other on the style. Word "
            "vectors and two residual MLPs from random weights, no token for the domain.",
            partial(ConflictTask, encoder=words_through_blocks),
            {"batch_size": 64, "steps": 300, "head": "none", "domain_token": False, "precision": "fp32"},
            {"learning_rate": (1e-3, 3e-3)},
            minutes=4,
            tuning_seeds=1,
        ),
        Experiment(
            "WordNet, four files",
            "Definitions of sister synsets; the domains are WordNet's lexicographer files. The first four layers of a pretrained transformer; the "
            "token of the domain stands in all arms.",
            partial(SisterTask, encoder=four_layers),
            {"batch_size": 64, "steps": 48, "head": "none", "precision": "auto"},
            {"learning_rate": (1e-4, 3e-4)},
            minutes=10,
            tuning_seeds=1,
        ),
    ),
)
