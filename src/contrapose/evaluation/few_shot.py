"""A few labels: a linear probe that sees some rows of each label, as a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from contrapose.evaluation.labelled import Labelled
from contrapose.evaluation.probes import FEW_SHOT_STRENGTH, few_shot, linear_probe
from contrapose.evaluation.probing import Encodes, LabelledProtocol, Probe
from contrapose.evaluation.result import Score, scores

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows

SHOTS = 5
DRAWS = 20

FEW_SHOT = Probe(
    "few_shot",
    linear_probe,
    SHOTS,
    f"Logistic regression on frozen vectors of {SHOTS} training rows of each label, drawn {DRAWS} times (seed 0) and averaged; columns "
    f"standardised by all training rows, the L2 penalty fixed (strength {FEW_SHOT_STRENGTH:g}).",
)


class FewShotProtocol(LabelledProtocol):
    """`LabelledProtocol` with five labels a class: what an encoder is worth where labels are dear, and full probes are all near their best."""

    over = "draws of the labelled rows"

    def __init__(
        self,
        source: str,
        values: Sequence[Any],
        labelled: Labelled,
        controls: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, tuple[Rows, Rows]]],
        note: str,
        bar: Callable[[str, int], AbstractContextManager[Any]],
    ) -> None:
        super().__init__(FEW_SHOT, source, values, labelled, controls, note, bar)

    def score(self, encoder: Encodes) -> float:
        """Mean accuracy over the draws."""
        vectors = self.rows(encoder)
        return self.figures([(vectors[self.labelled.train], vectors[self.labelled.test])])["accuracy"].value

    def figures(self, rows: Sequence[tuple[Rows, Rows]] | None) -> dict[str, Score]:
        if rows is None:
            return super().figures(None)
        ((train, test),) = rows
        return scores(few_shot(train, self.labelled.known, test, self.labelled.truth, shots=SHOTS, draws=DRAWS))
