"""DefSent+: definitions that predict entries made of definitions, the more evenly these lie the better."""

from __future__ import annotations

from functools import partial

from contrapose.claims._definitions import ENTRY_COSINE, WORDNET, DefinitionsTask
from contrapose.claims._sentences import SPEARMAN, four_layers
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

claim = Claim(
    method="defsent_plus",
    says="Predicting dictionary entries from their definitions gives sentence embeddings, and better ones where entries are not word embeddings "
    "but made of definitions by the encoder of the last round, and so lie more evenly in all directions; ICA makes them even at once.",
    source=WORDNET,
    measures=(SPEARMAN, ENTRY_COSINE),
    tuned_by=SPEARMAN.name,
    arms=(
        Arm("DefSent", "defsent_plus", {"targets": "words", "rounds": 1}),
        Arm("one round", "defsent_plus", {"rounds": 1}),
        Arm("two rounds", "defsent_plus", {"rounds": 2}),
        # 10 in the place of 100: the official factor saturates the softmax of a small encoder
        Arm("two rounds, ICA", "defsent_plus", {"rounds": 2, "isotropy": "ica", "isotropy_scale": 10.0}),
    ),
    statements=(
        Statement("Two rounds beat one.", SPEARMAN.name, "two rounds", "one round", least=0.02),
        Statement(
            "Entries of the second round lie more evenly.", ENTRY_COSINE.name, "two rounds", "one round", least=0.1
        ),
        Statement("Two rounds beat DefSent's word embeddings.", SPEARMAN.name, "two rounds", "DefSent", least=0.01),
        Statement("ICA in the last round adds to it.", SPEARMAN.name, "two rounds, ICA", "two rounds", least=0.01),
        Statement("ICA beats one round.", SPEARMAN.name, "two rounds, ICA", "one round", least=0.02),
    ),
    experiments=(
        Experiment(
            "MiniLM, four layers",
            "The first four layers of a pretrained transformer, mean pooling for entries and sentences (AMP): untuned and anisotropic (mean cosine "
            "0.5), as BERT is. All arms take as many steps a round.",
            partial(DefinitionsTask, encoder=four_layers),
            {
                "batch_size": 32,
                "steps": 160,
                "entry_pooling": "avg",
                "sentence_pooling": "avg",
                "ica_iterations": 200,
                "precision": "auto",
            },
            {"learning_rate": (3e-5, 1e-4)},
            minutes=12,
            tuning_seeds=1,
        ),
    ),
)
