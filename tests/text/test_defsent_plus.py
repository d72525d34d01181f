"""DefSent+: vectors of entries, rounds that restart, entries made even, heads and prompts, and what it refuses."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import contrapose
from contrapose.data.batches import seeded
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    DictionaryInvalid,
    ModelFolderInvalid,
    SettingInvalid,
    ShapesDiffer,
    TokenLimitInvalid,
    ValueMissing,
)
from contrapose.geometry import mean_cosine
from contrapose.text._entry_head import activation_of, checkpoint_head
from contrapose.text._prompt import pooled
from contrapose.text.data import open_data
from contrapose.text.defsent_plus import (
    DefSentPlus,
    EntryHead,
    drawn_entries,
    entry_cross_entropy,
)
from contrapose.text.encoder import TextEncoder
from contrapose.training.checkpoint import read_checkpoint
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import parse_settings
from tests.text.samples import TEXTS
from tests.text.tiny import WORDS

TINY = {"batch_size": 8, "steps": 3, "log_every": 1, "precision": "fp32"}


def dictionary(entries: int = 12) -> list[dict[str, str]]:
    """One to three definitions an entry, each with a word that the entry's others have too."""
    drawn = random.Random(0)
    return [
        {"entry": f"term {number:02}", "definition": " ".join([WORDS[number % len(WORDS)], *drawn.choices(WORDS, k=4)])}
        for number in range(entries)
        for _ in range(1 + number % 3)
    ]


def opened(rows: list[dict[str, str]], encoder: TextEncoder) -> Any:
    return open_data(read(rows, needs=DefSentPlus.card.columns), DefSentPlus.card, encoder)


def built(rows: list[dict[str, str]], encoder: TextEncoder, **settings: Any) -> tuple[DefSentPlus, Any]:
    data = opened(rows, encoder)
    model = DefSentPlus(parse_settings(DefSentPlus.Settings, {**TINY, **settings}, owner="defsent_plus"), encoder)
    model.build(data.facts)
    return model, data


def trained(folder: Path, encoder: TextEncoder, **settings: Any) -> tuple[DefSentPlus, RunFolder]:
    run = RunFolder.create(folder, {})
    chosen = parse_settings(DefSentPlus.Settings, {**TINY, **settings}, owner="defsent_plus")
    data = opened(dictionary(), encoder)
    return fit(lambda kind, given: kind(given, copy.deepcopy(encoder)), DefSentPlus, chosen, data, run), run


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


# ---------------------------------------------------------------------------------------------- entries and their loss


def test_padding_does_not_reach_the_vector_of_an_entry(encoder: TextEncoder) -> None:
    rows = dictionary()
    model, data = built(rows, encoder, entry_pooling="avg")
    model.prepare(data, None)
    one = [row["definition"] for row in rows if row["entry"] == "term 02"]
    alone = torch.cat([pooled(encoder.eval(), "avg")(encoder.tokens([text])) for text in one])
    torch.testing.assert_close(model.entries[2], alone.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_cross_entropy_over_all_entries_and_entries_are_frozen() -> None:
    predicted, entries = drawn(7, 4).requires_grad_(), (3 * drawn(50, 4, seed=1)).requires_grad_()
    index = torch.arange(7) * 7
    loss = entry_cross_entropy(predicted, entries, index)
    expected = nn.functional.cross_entropy(predicted @ entries.detach().T, index)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(each, predicted, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients)
    loss.backward()
    assert entries.grad is None


def test_logits_of_thousands_are_no_infinity() -> None:
    """ICA times 100 gives such logits, in float32."""
    predicted, entries = drawn(3, 16).float().requires_grad_(), (1000 * drawn(40, 16, seed=1)).float()
    loss = entry_cross_entropy(predicted, entries, torch.tensor([1, 2, 3]))
    expected = nn.functional.cross_entropy(predicted.double() @ entries.double().T, torch.tensor([1, 2, 3]))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()


def test_equal_entries_are_chance() -> None:
    loss = entry_cross_entropy(drawn(4, 3), drawn(1, 3, seed=1).expand(9, 3), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(9))


def test_an_index_that_is_no_entry() -> None:
    with pytest.raises(ArgumentInvalid):
        entry_cross_entropy(drawn(2, 3), drawn(4, 3), torch.tensor([0, 4]))
    with pytest.raises(ShapesDiffer, match="encoder's dimensions"):
        entry_cross_entropy(drawn(2, 3), drawn(4, 5), torch.tensor([0, 1]))


def test_all_entries_drawn_are_the_whole_sum() -> None:
    predicted, entries, index = drawn(5, 4), drawn(60, 4, seed=1), torch.tensor([3, 3, 8, 50, 9])
    all_of_them = drawn_entries(60, index, 100, seeded(0))
    assert sorted([*all_of_them.tolist(), *index.unique().tolist()]) == list(range(60))
    torch.testing.assert_close(
        entry_cross_entropy(predicted, entries, index, all_of_them),
        nn.functional.cross_entropy(predicted @ entries.T, index),
    )


def test_fewer_entries_are_right_on_average() -> None:
    """1 / probability is a sum over entries, and drawn ones estimate it without bias."""
    predicted, entries, index = drawn(1, 4), 0.5 * drawn(30, 4, seed=1), torch.tensor([3])
    whole = nn.functional.cross_entropy(predicted @ entries.T, index).exp()
    generator, draws = seeded(0), 300
    losses = [entry_cross_entropy(predicted, entries, index, drawn_entries(30, index, 10, generator)) for _ in range(draws)]  # fmt: skip
    assert torch.stack(losses).exp().mean().item() == pytest.approx(whole.item(), rel=0.05)


def test_no_other_entry_left_to_draw() -> None:
    index = torch.tensor([0, 1])
    assert len(drawn_entries(2, index, 5, seeded(0))) == 0
    entries = drawn(2, 3, seed=1)
    loss = entry_cross_entropy(drawn(2, 3), entries, index, drawn_entries(2, index, 5, seeded(0)))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(drawn(2, 3) @ entries.T, index))


# --------------------------------------------------------------------------------------------------------- rounds


def test_each_round_has_entries_by_the_last_one_and_starts_from_the_first_weights(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    settings = {"rounds": 2, "learning_rates": "1e-2,0"}
    model, run = trained(tmp_path / "run", encoder, **settings)
    lines = run.metrics()
    assert [line["stage"] for line in lines] == ["round-1"] * 3 + ["train"] * 3
    assert [lines[0]["learning_rate"], lines[3]["learning_rate"]] == [1e-2, 0]

    initial, data = built(dictionary(), copy.deepcopy(encoder), **settings)
    round_one, _ = built(dictionary(), copy.deepcopy(encoder), **settings)
    round_one.load_state_dict(read_checkpoint(run.stage_file("round-1"))[0])
    for name, weight in initial.encoder.state_dict().items():  # at rate 0 round 2 ends where it starts
        assert torch.equal(model.encoder.state_dict()[name], weight)
    assert (round_one.head[0].weight - initial.head[0].weight).abs().max() > 1e-3
    initial.prepare(data, None)
    entries_of_initial = initial.entries.clone()
    initial.prepare(data, round_one)
    assert (initial.entries - entries_of_initial).abs().max() > 1e-3
    assert float(model.entry_cosine) == pytest.approx(mean_cosine(initial.entries), rel=1e-4)


def test_isotropy_comes_in_the_last_round_or_in_every_one() -> None:
    for rounds, wanted in (("last", ["none", "none", "ica"]), ("every", ["ica"] * 3)):
        settings = DefSentPlus.Settings(rounds=3, isotropy="ica", isotropy_rounds=rounds)
        assert [settings.of_round(number).isotropy for number in range(3)] == wanted


def test_entries_are_kept_and_stay_as_they_are_in_training(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))
    model, data = built(dictionary(), encoder)
    model.prepare(data, None)
    before = model.entries.clone()
    (kept,) = (tmp_path / "cache" / "entries").glob("*.safetensors")
    assert torch.equal(load_file(kept)["entries"], before)
    seen = []
    run = RunFolder.create(tmp_path / "run", {})

    def create(kind: type, given: Any) -> DefSentPlus:
        seen.append(kind(given, copy.deepcopy(encoder)))
        return seen[-1]

    fit(create, DefSentPlus, parse_settings(DefSentPlus.Settings, {**TINY, "rounds": 1}, owner=""), data, run)
    entries = next(each.entries for each in seen if getattr(each, "entries", None) is not None)
    assert torch.equal(entries, before)
    assert len(list((tmp_path / "cache" / "entries").glob("*.safetensors"))) == 1  # found, not made anew


def test_a_definition_learns_to_predict_its_entry(encoder: TextEncoder, tmp_path: Path) -> None:
    """Three seeds: the loss falls well below chance."""
    for seed in range(3):
        chosen = {"seed": seed, "steps": 90, "learning_rate": 3e-3, "rounds": 1, "isotropy": "normalise"}
        _, run = trained(tmp_path / str(seed), encoder, **chosen)
        losses = [line["terms"]["cross_entropy"] for line in run.metrics()]
        assert np.mean(losses[-10:]) < 0.8 * math.log(12) < np.mean(losses[:3])


def test_what_the_dictionary_repeats_is_said(encoder: TextEncoder) -> None:
    rows = [*dictionary(6), dictionary(6)[0], {"entry": "another", "definition": dictionary(6)[0]["definition"]}]
    model, data = built(rows, encoder)
    model.prepare(data, None)
    said = "; ".join(model.remarks)
    assert "5 of 7 entries have several definitions" in said
    assert "1 rows repeat an entry with the same definition" in said
    assert "1 definitions belong to several entries" in said
    assert "mean cosine of the 7 entries" in said


def test_words_as_targets_take_entries_of_one_token(encoder: TextEncoder) -> None:
    rows = [{"entry": name, "definition": "a thing"} for name in ("cat", "dog", "zebra", "tree")]
    model, data = built(rows, encoder, targets="words", rounds=1)
    model.refuse(data)
    model.prepare(data, None)
    words = encoder.transformer.get_input_embeddings().weight
    tokens = encoder.tokenizer.convert_tokens_to_ids(["cat", "dog", "tree"])  # sorted, "zebra" is several tokens
    assert torch.equal(model.entries, words[tokens])
    batches = model.batches(data, 0, seeded(0))
    names = sorted(data.categories["entry"][code] for code in data.columns["entry"][torch.cat(list(batches))].tolist())
    assert names == ["cat", "dog", "tree"]
    assert any("1 definitions are left out" in remark for remark in model.remarks)
    other, none = built([{"entry": name, "definition": "a"} for name in ("zebra", "okapi")], encoder, targets="words", rounds=1)  # fmt: skip
    with pytest.raises(DictionaryInvalid, match="0 of 2 entries are a single token"):
        other.refuse(none)


def test_ica_that_did_not_converge_is_said(encoder: TextEncoder) -> None:
    model, data = built(dictionary(60), encoder, isotropy="ica", ica_iterations=1)
    model.prepare(data, None)
    assert any("did not converge in 1 iterations" in remark for remark in model.remarks)


# ------------------------------------------------------------------------------------------------- heads and prompts


def test_the_head_has_the_checkpoints_own_pooler(tiny_bert: Path, encoder: TextEncoder) -> None:
    head, trained_before = checkpoint_head(encoder, "tanh")
    stored = load_file(tiny_bert / "model.safetensors")
    assert trained_before
    assert torch.equal(head[0].weight, stored["pooler.dense.weight"])
    assert torch.equal(head[0].bias, stored["pooler.dense.bias"])
    _, found = checkpoint_head(encoder, "gelu")
    assert not found


def test_the_head_of_roberta_is_its_language_models_and_gelu(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=70,
    )
    with torch.random.fork_rng():
        model = RobertaForMaskedLM(config)
    model.save_pretrained(tmp_path / "roberta")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "roberta")
    encoder = TextEncoder.open(str(tmp_path / "roberta"), max_tokens=16)
    assert activation_of(encoder) == "gelu"
    head, found = checkpoint_head(encoder, "gelu")
    assert found
    assert torch.equal(head[0].weight, model.lm_head.dense.weight)
    pooled_states = torch.randn(2, 32)
    expected = nn.functional.gelu(model.lm_head.dense(pooled_states))
    torch.testing.assert_close(head(pooled_states), expected)


def test_a_head_that_the_encoder_came_with_is_left_out(encoder: TextEncoder) -> None:
    encoder.put_head(contrapose.text.encoder.Head(32))
    model, _ = built(dictionary(), encoder)
    assert model.encoders()["encoder"].head is None


def test_training_and_use_may_pool_otherwise(encoder: TextEncoder) -> None:
    model, _ = built(dictionary(), encoder, sentence_pooling="avg", pooling="cls_before_pooler")
    kept = model.encoders()["encoder"].eval()
    assert (model.encoder.pooling, kept.pooling) == ("avg", "cls_before_pooler")
    states = encoder.transformer(input_ids=encoder.tokens(TEXTS[:1]).ids[None]).last_hidden_state
    torch.testing.assert_close(kept(encoder.tokens(TEXTS[:1])), states[:, 0], rtol=1e-4, atol=1e-5)


def prompt_vector(encoder: TextEncoder, text: str) -> Tensor:
    """By hand: the state of the mask."""
    ids = torch.tensor(encoder.tokenizer(f'This sentence : "{text}" means [MASK] .')["input_ids"])
    place = int((ids == encoder.tokenizer.mask_token_id).nonzero()[-1])
    return encoder.transformer(input_ids=ids[None]).last_hidden_state[0, place]


def test_a_prompt_gives_the_state_of_the_mask_and_is_saved_and_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    settings = {**TINY, "rounds": 1, "pooling": "prompt"}
    run = contrapose.train(
        "defsent_plus",
        dictionary(),
        encoder={"name": str(tiny_bert), "max_tokens": 64},
        out=tmp_path / "run",
        progress=False,
        settings=settings,
    )
    kept = run.model.encoder()
    vectors = kept.encode(TEXTS)
    text = TextEncoder.open(str(tiny_bert), max_tokens=64, pooling="avg")
    text.load_state_dict(kept.state_dict())
    with torch.no_grad():
        expected = torch.stack([prompt_vector(text.eval(), each) for each in TEXTS])
    expected = nn.functional.normalize(expected, dim=1) if kept.normalise else expected
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)
    again = contrapose.load(run.path).encoder()
    np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=1e-6)
    assert again.record() == kept.record()
    with pytest.raises(ModelFolderInvalid, match="into a prompt"):
        TextEncoder.open(str(run.path))
    assert TextEncoder.open(str(run.path), pooling="avg").prompt is None


# ------------------------------------------------------------------------------------------------------- bad input


ENTRY = {"entry": "cat", "definition": "a small animal"}
TWO = [ENTRY, {"entry": "dog", "definition": "a large animal"}]
BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], type[ContraposeError], str]] = {
    "one entry": ([ENTRY, ENTRY], {}, DictionaryInvalid, "one entry alone, 'cat'"),
    "no definition": ([*TWO, {"entry": "tree", "definition": None}], {}, ValueMissing, "definition"),
    "empty definition": ([*TWO, {"entry": "tree", "definition": " "}], {}, ValueMissing, "definition"),
    "too few for ICA": (TWO, {"isotropy": "ica"}, DictionaryInvalid, "more entries than the 32 dimensions"),
    "pooling": (TWO, {"pooling": "max"}, SettingInvalid, "pooling"),
    "rates": (TWO, {"rounds": 2, "learning_rates": "1e-5"}, SettingInvalid, "must be 2 numbers"),
    "words": (TWO, {"targets": "words"}, SettingInvalid, "set rounds=1"),
}


@pytest.mark.parametrize(("rows", "settings", "error", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_anything_is_written(
    rows: list[dict[str, Any]], settings: dict[str, Any], error: type, said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        contrapose.train(
            "defsent_plus", rows, encoder=str(tiny_bert), out=tmp_path / "run", progress=False, settings={**TINY, **settings}
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_prompt_that_does_not_fit_is_refused_when_it_is_built(encoder: TextEncoder) -> None:
    with pytest.raises(TokenLimitInvalid, match="leaves no room for a text"):
        built(dictionary(), encoder, pooling="prompt")


def test_fresh_weights_of_the_head_are_said(encoder: TextEncoder) -> None:
    model, data = built(dictionary(), TextEncoder(encoder.transformer, encoder.tokenizer, max_tokens=16))
    model.prepare(data, None)
    assert isinstance(model.head, EntryHead)
    assert any("fresh weights" in remark for remark in model.remarks)
