"""Values that a method cannot use, refused in one sentence with the place of the first."""

from __future__ import annotations

import pytest

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.errors import ValueKind, ValueMissing

POSITIVE = (Column("positive", "text", "its partner"),)


def test_the_sentence_about_empty_texts(write):
    path = write("pairs.csv", "anchor,positive\na,b\nc,\nd,\t \ne,\u3000\n")
    with pytest.raises(ValueMissing) as caught:
        read(path, needs=POSITIVE)
    assert str(caught.value) == (
        f"{path}, line 3: column 'positive' is empty (3 such rows in all). An empty text gives a constant embedding, "
        "so the row can't be learnt. Fill it in, or drop such rows with --drop-empty. [CL-DATA-010]"
    )


def test_a_blank_line_of_a_txt_file_is_an_empty_row(write):
    with pytest.raises(ValueMissing, match=r"some.txt, line 2: column 'text' is empty \(the only such row\)"):
        read(write("some.txt", "a\n\nb\n"), needs=(Column("text", "text", ""),))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("17", "is 17, not text"),
        ("true", "is True, not text"),
        ('["a"]', r"is \['a'\], not text"),
        (r'"half \ud83d"', r"is 'half \\ud83d', not text .*half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("others", ['"b"', None])
def test_a_value_that_is_no_text_is_named_with_its_line(write, value, shown, others):
    first = others or value  # a column of mixed values, and one of such values alone
    path = write("pairs.jsonl", f'{{"positive": {first}}}\n{{"positive": {value}}}\n')
    with pytest.raises(ValueKind, match=rf"line {2 if others else 1}: column 'positive' {shown}"):
        read(path, needs=POSITIVE)


def test_drop_empty_does_not_drop_values_of_another_kind(write):
    path = write("pairs.jsonl", '{"positive": ""}\n{"positive": 17}\n')
    with pytest.raises(ValueKind, match="line 2"):
        read(path, needs=POSITIVE, drop_empty=True)


@pytest.mark.parametrize("value", ["high", "inf", "1,5", "nan"])
def test_a_score_that_is_no_finite_number_is_named_with_its_line(write, value):
    path = write("scored.tsv", f"text\tscore\na\t0.5\nb\t{value}\n")
    with pytest.raises(ValueKind, match=f"line 3: column 'score' is '{value}', not a finite number"):
        read(path, needs=(Column("score", "score", "similarity"),))


@pytest.mark.parametrize("kind", ["label", "domain", "number", "score", "image"])
def test_an_empty_value_of_any_kind_is_refused(kind):
    with pytest.raises(ValueMissing, match=f"row 1 of the list: .*A row without its {kind}"):
        read([{"x": "1"}, {"x": None}], needs=(Column("x", kind, ""),))


def test_labels_may_be_texts_or_numbers():
    labels = ["a", 1]
    table = read([{"label": label} for label in labels], needs=(Column("label", "label", "the class"),))
    assert list(table["label"]) == labels
