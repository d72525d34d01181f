"""mteb's own loop on a model of ours, with tasks whose data are here: no network, and the figures of our protocols."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import EncoderProtocol

from contrapose.errors import DomainUnknown, PackageMissing, UsageInvalid
from contrapose.export.model_folder import Model
from contrapose.export.mteb import MTEBEncoder
from contrapose.text._pair_encoder import PairEncoder, PairHead
from contrapose.text._routing import RoutedEncoder
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol
from tests.text.samples import TEXTS

RATED = {
    "sentence1": ["the cat sat", "a red house", "dogs run", "the river is large", "green and blue", "a small tree"],
    "sentence2": ["the cat sat down", "a blue house", "the old tree", "dogs sleep", "the new green house", "one tree"],
    "score": [4.5, 3.0, 0.5, 0.0, 1.5, 4.8],
}
FACTS: dict[str, Any] = {
    "description": "Rows of a test.",
    "dataset": {"path": "NA", "revision": "NA"},
    "category": "t2t",
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "modalities": ["text"],
}


class Rated(AbsTaskSTS):
    metadata = TaskMetadata(type="STS", name="Rated", main_score="cosine_spearman", **FACTS)

    def load_data(self, **_: Any) -> None:
        self.dataset = DatasetDict({"test": Dataset.from_dict(RATED)})
        self.data_loaded = True


class Partners(AbsTaskRetrieval):
    metadata = TaskMetadata(type="Retrieval", name="Partners", main_score="ndcg_at_10", **FACTS)

    def load_data(self, **_: Any) -> None:
        names = [str(row) for row in range(len(RATED["score"]))]
        queries, corpus = (
            Dataset.from_dict({"id": [side + name for name in names], "text": RATED[column]})
            for side, column in (("q", "sentence1"), ("d", "sentence2"))
        )
        right = {f"q{name}": {f"d{name}": 1} for name in names}
        split = {"queries": queries, "corpus": corpus, "relevant_docs": right, "top_ranked": None}
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def figures(model: MTEBEncoder, task: mteb.AbsTask) -> dict[str, float]:
    found = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = found.task_results[0].scores["test"]
    return scores


@pytest.fixture
def model(encoder: TextEncoder) -> Model:
    return Model({"encoder": encoder}, "text", "simcse")


@pytest.fixture
def encoder(tiny_bert: Path) -> TextEncoder:
    return TextEncoder.open(str(tiny_bert), max_tokens=16)


def test_sts_of_mteb_is_ours(model, encoder):
    ours = open_protocol("sts", RATED, None, None).score(encoder)
    assert figures(MTEBEncoder(model), Rated())["cosine_spearman"] == pytest.approx(ours, abs=1e-5)


def test_retrieval_of_mteb_is_ours(model, encoder):
    protocol = open_protocol("retrieval", RATED, {"anchor": "sentence1", "positive": "sentence2"}, None)
    ((ranked, _), _) = protocol.rank(encoder)
    found = figures(MTEBEncoder(model), Partners())
    assert found["ndcg_at_10"] == pytest.approx(ranked["ndcg@10"].mean(), abs=1e-5)
    assert found["hit_rate_at_1"] == pytest.approx(ranked["accuracy@1"].mean(), abs=1e-5)
    assert 0 < ranked["accuracy@1"].mean() < 1  # else any order of the candidates would do


def test_it_is_an_encoder_of_mteb_with_a_name_of_its_own(model):
    encoder = MTEBEncoder(model)
    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.name == "contrapose/simcse"
    assert MTEBEncoder(model, name="me/mine").mteb_model_meta.name == "me/mine"


def test_other_weights_have_another_revision(model, encoder):
    before = MTEBEncoder(model).mteb_model_meta.revision
    assert MTEBEncoder(model).mteb_model_meta.revision == before
    assert MTEBEncoder(model, precision="bfloat16").mteb_model_meta.revision != before
    with torch.no_grad():
        next(encoder.parameters())[0, 0] += 1
    assert MTEBEncoder(model).mteb_model_meta.revision != before


def test_queries_and_documents_have_the_encoders_that_were_named(encoder, tiny_bert):
    other = TextEncoder.open(str(tiny_bert), layers=1)
    both = MTEBEncoder(Model({"query": encoder, "passage": other}, "text", "pairs"), query="query", document="passage")
    batches = [{"text": TEXTS[:2]}, {"text": TEXTS[2:]}]
    np.testing.assert_array_equal(both.encode(batches, prompt_type="query"), encoder.encode(TEXTS))
    np.testing.assert_array_equal(both.encode(batches, prompt_type="document"), other.encode(TEXTS))


def test_a_routed_model_is_told_the_domain(encoder):
    routed = Model({"encoder": RoutedEncoder(encoder, ["law", "art"])}, "text", "moe_embeddings")
    with pytest.raises(DomainUnknown):
        MTEBEncoder(routed).encode([{"text": TEXTS}])
    told = MTEBEncoder(routed, values=lambda texts: [{"text": text, "domain": "law"} for text in texts])
    expected = routed.encode([{"text": text, "domain": "law"} for text in TEXTS])
    np.testing.assert_array_equal(told.encode([{"text": TEXTS}]), expected)


def test_a_model_that_scores_pairs_is_compared_by_its_scores(encoder):
    scorer = PairEncoder(encoder, PairHead(encoder.dim, hidden=8)).eval()
    model = MTEBEncoder(Model({"encoder": scorer}, "text", "dse"))
    first, second = (model.encode([{"text": RATED[side]}]) for side in ("sentence1", "sentence2"))
    expected = scorer.score_matrix(RATED["sentence1"], RATED["sentence2"])
    np.testing.assert_allclose(model.similarity(torch.tensor(first), torch.tensor(second)), expected, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(first, second), expected.diagonal(), atol=1e-5)


def test_what_mteb_cannot_list_is_refused(model):
    with pytest.raises(UsageInvalid, match="no encoder 'passage'"):
        MTEBEncoder(model, document="passage")
    with pytest.raises(UsageInvalid, match="OWNER/NAME"):
        MTEBEncoder(model, name="mine")


def test_without_mteb_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)  # as if it were not installed
    with pytest.raises(PackageMissing, match=r"contrapose\[mteb\]"):
        MTEBEncoder(model)
