"""MoE embeddings: routing, the experts at the start, domains at encoding, and what is refused."""

from __future__ import annotations

import copy
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import contrapose
from contrapose.claims._domain_pairs import MISROUTED, ConflictTask, words_through_blocks
from contrapose.data.batches import Batch, seeded
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    DomainUnknown,
    ExpertsUnavailable,
    NoNegatives,
    SettingInvalid,
    ValueMissing,
)
from contrapose.text._routing import RoutedEncoder, mlp_places
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder, load_encoder
from contrapose.text.moe_embeddings import MoEEmbeddings, cocited_pairs, mnr, mnr_plus, mnr_plus_targets, route
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import parse_settings
from tests.text.samples import FAMILIES, TEXTS, random_transformer
from tests.text.tiny import WORDS

DOMAINS = ("air", "sea")
TINY = {"batch_size": 8, "steps": 3, "log_every": 1, "precision": "fp32"}


def pairs(rows: int = 24) -> list[dict[str, str]]:
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=drawn.randint(2, 7))) for _ in range(2 * rows)]
    return [
        {"anchor": texts[2 * row], "positive": texts[2 * row + 1], "domain": DOMAINS[row % 2]} for row in range(rows)
    ]


def labelled(rows: int = 16) -> list[dict[str, Any]]:
    return [{**pair, "label": row // 2 % 2} for row, pair in enumerate(pairs(rows))]


def values(domain: str | None = None) -> list[dict[str, str]]:
    return [{"text": text, "domain": domain or DOMAINS[row % 2]} for row, text in enumerate(TEXTS)]


def specialised(encoder: TextEncoder, **options: Any) -> RoutedEncoder:
    """With experts that differ."""
    routed = RoutedEncoder(copy.deepcopy(encoder), DOMAINS, **options)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in [*routed.experts.parameters(), routed.text.transformer.get_input_embeddings().weight]:
            weight.add_(0.3 * torch.randn_like(weight))
    return routed.eval()


def built(encoder: TextEncoder, rows: list[dict[str, str]], **settings: Any) -> tuple[MoEEmbeddings, Any]:
    data = open_data(read(rows, needs=MoEEmbeddings.card.columns), MoEEmbeddings.card, encoder)
    model = MoEEmbeddings(parse_settings(MoEEmbeddings.Settings, {**TINY, **settings}, owner="moe"), encoder)
    model.build(data.facts)
    return model, data


def unit(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=seeded(seed))


# ------------------------------------------------------------------------------------------------------ routing


@pytest.mark.parametrize("experts", ["all", "middle", "none"])
@pytest.mark.parametrize("domain_token", [True, False])
def test_at_the_start_it_is_the_pretrained_encoder(experts: str, domain_token: bool, encoder: TextEncoder) -> None:
    before = encoder.encode(TEXTS)
    routed = RoutedEncoder(copy.deepcopy(encoder), DOMAINS, experts=experts, domain_token=domain_token).eval()
    np.testing.assert_allclose(routed.encode(values()), before, atol=1e-6)
    inputs = {"text": routed.tokens(TEXTS), "domain": torch.tensor([0, 1, 0, 1, 0, 1])}
    with torch.no_grad():
        forward = nn.functional.normalize(routed(inputs), dim=-1)
    np.testing.assert_allclose(forward.numpy(), before, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mlps_of_every_family_are_found(family: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    transformer = AutoModel.from_pretrained(random_transformer(family, tmp_path))
    places = mlp_places(transformer)
    assert len(places) == 3
    names = {
        name for block in places for place in block for name, _ in transformer.get_submodule(place).named_modules()
    }
    assert not [name for name in names if "norm" in name.lower() or "attention" in name]


def test_only_the_middle_block_has_experts(encoder: TextEncoder) -> None:
    routed = RoutedEncoder(copy.deepcopy(encoder), DOMAINS, experts="middle")
    assert routed.places == ["encoder.layer.1.intermediate", "encoder.layer.1.output.dense"]


@pytest.mark.parametrize("domain_token", [True, False])
def test_forward_and_encode_and_the_plain_encoder_of_a_domain_agree(domain_token: bool, encoder: TextEncoder) -> None:
    routed = specialised(encoder, domain_token=domain_token)
    inputs = {"text": routed.tokens(TEXTS), "domain": torch.tensor([0, 1, 0, 1, 0, 1])}
    with torch.no_grad():
        forward = nn.functional.normalize(routed(inputs), dim=-1).numpy()
    encoded = routed.encode(values())
    np.testing.assert_allclose(encoded, forward, atol=1e-5)
    for number, domain in enumerate(DOMAINS):
        plain = routed.plain(domain)
        assert plain.transformer.get_input_embeddings().num_embeddings == len(encoder.tokenizer)
        np.testing.assert_allclose(plain.encode(TEXTS)[number::2], encoded[number::2], atol=1e-5)
    assert np.abs(routed.encode(values("air")) - routed.encode(values("sea"))).max() > 0.01


def test_an_expert_without_rows_has_no_gradient(encoder: TextEncoder) -> None:
    routed = specialised(encoder).train()
    routed({"text": routed.tokens(TEXTS), "domain": torch.ones(len(TEXTS), dtype=torch.long)}).sum().backward()
    assert all(weight.grad is None for weight in routed.experts[0].parameters())
    assert all(weight.grad is not None for weight in routed.experts[1].parameters())
    assert not [name for name in routed.text.state_dict() if "intermediate" in name]  # the experts alone hold MLPs


@pytest.mark.parametrize(
    ("assignment", "experts", "said"),
    [
        (torch.tensor([0, 2, 1]), 2, "numbered 0 to 1; got 0 to 2"),
        (torch.tensor([0, -1, 1]), 2, "got -1 to 1"),
        (torch.tensor([0, 1]), 2, "3 rows need as many integers"),
        (torch.tensor([0.0, 1.0, 1.0]), 2, "torch.float32"),
        (torch.tensor([0, 0, 0]), 0, "one expert at least"),
    ],
)
def test_a_bad_assignment(assignment: Tensor, experts: int, said: str) -> None:
    with pytest.raises(ArgumentInvalid, match=said):
        route(torch.zeros(3, 2), assignment, experts, lambda expert, rows: rows)


# ------------------------------------------------------------------------------------------------------- losses


def test_mnr_plus_by_hand() -> None:
    a, b = 2 * unit(5, 3, 0), 2 * unit(5, 3, 1)
    a[1], b[1] = 0.1 * a[0], 0.1 * b[0]  # beside one of ten times the norm
    rows, columns = mnr_plus_targets(a, b)
    shares = ((a @ a.T + b @ b.T) / 2).softmax(dim=1)
    assert rows.tolist() == shares.argmax(dim=1).tolist()
    assert rows.tolist() != list(range(5))  # the case that it is for
    scores = a @ b.T / 2
    by_hand = (nn.functional.cross_entropy(scores, rows) + nn.functional.cross_entropy(scores.T, columns)) / 2
    torch.testing.assert_close(mnr_plus(a, b, temperature=2.0), by_hand)
    torch.testing.assert_close(mnr(a, b), nn.functional.cross_entropy(a @ b.T, torch.arange(5)))


def test_with_groups_rows_of_one_group_are_no_negatives() -> None:
    a, b, group = unit(4, 3, 0), unit(4, 3, 1), torch.tensor([0, 0, 1, 2])
    scores = a @ b.T
    scores = scores.masked_fill((group == group[:, None]) & ~torch.eye(4, dtype=torch.bool), -torch.inf)
    target = torch.arange(4)
    by_hand = (nn.functional.cross_entropy(scores, target) + nn.functional.cross_entropy(scores.T, target)) / 2
    torch.testing.assert_close(mnr_plus(a, b, group=group), by_hand)


# ------------------------------------------------------------------------------------------------------ training


def test_sides_change_at_random_and_pairs_stay(encoder: TextEncoder) -> None:
    model, data = built(encoder, pairs())
    batch = Batch(data, torch.arange(24), 0, seeded(0))
    views = model.views(batch)
    anchors, positives = (data.columns[name][torch.arange(24)].split() for name in ("anchor", "positive"))
    first, second = (views[name].inputs["text"].split() for name in ("first", "second"))
    swapped = [row for row in range(24) if not torch.equal(first[row], anchors[row])]
    assert 4 < len(swapped) < 20
    for row in range(24):
        own = (positives[row], anchors[row]) if row in swapped else (anchors[row], positives[row])
        assert all(torch.equal(*sides) for sides in zip((first[row], second[row]), own, strict=True))


def test_batches_of_one_domain(encoder: TextEncoder) -> None:
    model, data = built(encoder, pairs(21), same_domain_batches=True, batch_size=5)
    batches = model.batches(data, 0, seeded(0))
    domain = data.columns["domain"][torch.arange(21)]
    assert all(len(domain[batch].unique()) == 1 for batch in batches)
    assert sorted(torch.cat(batches).tolist()) != list(range(21))  # 11 rows of one domain leave one over
    assert sum(map(len, batches)) == 20


def test_a_run_routes_saves_and_loads(tiny_bert: Path, tmp_path: Path) -> None:
    on = {"pair_labels": labelled()}
    run = contrapose.train(
        "moe_embeddings", pairs(), encoder=str(tiny_bert), out=tmp_path / "run", on=on, select=on, progress=False,
        settings={**TINY, "learning_rate": 0.01},
    )  # fmt: skip
    routed = run.model.encoder()
    assert isinstance(routed, RoutedEncoder)
    assert routed.domains == DOMAINS
    assert np.abs(run.model.encode(values("air")) - run.model.encode(values("sea"))).max() > 1e-3
    found = set(run.results[0].systems["trained"])
    assert {"f1max", "roc auc", "f1max air", "roc auc sea"} <= found
    assert "routes by domain (air, sea)" in (run.path / "model" / "README.md").read_text()
    plain = contrapose.Model({"encoder": routed.plain("sea")}, "text", "moe_embeddings")
    plain.save(tmp_path / "sea")
    loaded = contrapose.load(tmp_path / "sea")
    np.testing.assert_allclose(loaded.encode(TEXTS), run.model.encode(values("sea")), atol=1e-5)
    vectors = contrapose.embed(run, [*pairs(5)], tmp_path / "v.npy", column="anchor", precision="float32")
    first = {"text": pairs(5)[0]["anchor"], "domain": "air"}
    np.testing.assert_allclose(np.load(vectors)[:1], run.model.encode([first]), atol=1e-5)
    with pytest.raises(ContraposeError, match=r"routes texts by their domain \(air, sea\)"):
        TextEncoder.open(str(run.path))


def test_a_saved_routed_encoder_is_loaded_as_it_was(encoder: TextEncoder, tmp_path: Path) -> None:
    routed = specialised(encoder, experts="middle", fallback="sea")
    routed.save(tmp_path)
    loaded = load_encoder(tmp_path, json.loads(json.dumps(routed.record())))
    assert np.array_equal(loaded.encode(values()), routed.encode(values()))
    assert loaded.record() == routed.record()


# -------------------------------------------------------------------------------------------- domains at encoding


@pytest.mark.parametrize(
    ("value", "said"), [("a cat", "no domain"), ({"text": "a cat", "domain": "land"}, "the unknown domain 'land'")]
)
def test_an_unknown_domain_is_an_error_that_lists_them_or_the_fallback(
    value: Any, said: str, encoder: TextEncoder
) -> None:
    with pytest.raises(DomainUnknown, match=f"Value 1 has {said}.*air, sea"):
        specialised(encoder).encode([{"text": "a dog", "domain": "air"}, value])
    falling = specialised(encoder, fallback="sea")
    np.testing.assert_array_equal(falling.encode([value]), falling.encode([{"text": "a cat", "domain": "sea"}]))


BAD: dict[str, tuple[list[dict[str, str]], dict[str, Any], type[ContraposeError], str]] = {
    "a domain missing": ([*pairs(3), {"anchor": "a", "positive": "b", "domain": ""}], {}, ValueMissing, "'domain' is empty"),
    "one pair": (pairs(1), {}, NoNegatives, "1 row"),
    "fallback": (pairs(), {"fallback": "land"}, DomainUnknown, "none of the domains: air, sea"),
    "no layers": (pairs(), {"encoder.layers": 0}, ExpertsUnavailable, "no blocks with an MLP"),
    "temperature": (pairs(), {"temperature": 2.0}, SettingInvalid, "leaves cosines no room"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "settings", "error", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_anything_is_written(
    rows: list[dict[str, str]], settings: dict[str, Any], error: type, said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        contrapose.train(
            "moe_embeddings", rows, encoder=str(tiny_bert), out=tmp_path / "run", progress=False, settings=settings
        )
    assert not (tmp_path / "run").exists()


STRANGERS = [{**row, "domain": "land"} for row in labelled()]
UNTOLD = [{name: value for name, value in row.items() if name != "domain"} for row in labelled()]


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ({"pair_labels": STRANGERS}, "the unknown domain 'land'"),
        ({"pair_labels": UNTOLD}, "no column 'domain'"),
        ({"retrieval": pairs()}, "retrieval on .* no column 'domain'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(
    on: dict[str, Any], said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(DomainUnknown, match=said):
        contrapose.train("moe_embeddings", pairs(), encoder=str(tiny_bert), out=tmp_path / "run", on=on, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_module_of_ones_own_needs_mlps() -> None:
    with pytest.raises(ExpertsUnavailable, match="Embedding has no blocks"):
        mlp_places(nn.Embedding(3, 4))


# ---------------------------------------------------------------------------------------------- citations, learning


def test_documents_cited_together_become_pairs_of_one_domain() -> None:
    documents = {name: {"text": f"text {name}", "domain": "air" if name < "c" else "sea"} for name in "abcd"}
    citations = [("x", "a"), ("x", "b"), ("x", "c"), ("y", "a"), ("y", "b"), ("z", "c"), ("z", "d"), ("z", "unknown")]
    found = cocited_pairs(citations, documents)
    assert [(row["anchor"], row["positive"], row["domain"]) for row in found] == [
        ("text a", "text b", "air"),
        ("text c", "text d", "sea"),
    ]
    assert [row["domain"] for row in cocited_pairs(citations, documents, least=2)] == ["air"]
    with pytest.raises(ArgumentInvalid, match="least is 0"):
        cocited_pairs(citations, documents, least=0)


def test_experts_beat_one_shared_encoder_where_domains_contradict_each_other(tmp_path: Path) -> None:
    """Three seeds, mean area under the ROC curve; sent to the other domain's expert, texts lose what was learned."""
    task = ConflictTask(tmp_path, partial(words_through_blocks, dim=32), pairs=3000)
    figures: dict[str, list[dict[str, float]]] = {"none": [], "all": []}
    for experts, found in figures.items():
        for seed in range(3):
            chosen = {"experts": experts, "seed": seed, "steps": 200, "batch_size": 64, "learning_rate": 3e-3}
            settings = MoEEmbeddings.Settings(**chosen, head="none", domain_token=False, precision="fp32")
            folder = RunFolder.create(tmp_path / f"{experts}-{seed}", {})
            model = fit(task.create, MoEEmbeddings, settings, task.data(MoEEmbeddings), folder)
            found.append(task.measure(model.eval(), "dev"))
    shared, routed = (np.mean([each["roc auc"] for each in found]) for found in figures.values())
    assert routed - shared > 0.03
    assert routed - np.mean([each[MISROUTED.name] for each in figures["all"]]) > 0.1
