"""What a pair of growing towers is built from, and which larger ones are a step away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from contrapose.errors import ArchitectureInvalid

COORDINATES = ("image", "text", "shared", "hidden", "heads")


@dataclass(frozen=True)
class Architecture:
    """Depths of the towers in blocks, and the inside of every block.

    `image`, `text`: blocks of each tower; `shared`: blocks behind both, with the same weights for both. `hidden`: width of the MLPs; `heads`:
    of attention, each of `head` dimensions. `width`, of what passes from block to block, does not grow: a LayerNorm over more dimensions is
    another function.
    """

    image: int = 2
    text: int = 2
    shared: int = 0
    width: int = 64
    hidden: int = 128
    heads: int = 2
    head: int = 32

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name in ("shared", "image", "text") else 1):
                raise ArchitectureInvalid(
                    f"{name} is {value}; a tower has at least {int(name not in COORDINATES[:3])}."
                )

    @property
    def block(self) -> int:
        """Parameters of a block."""
        w, inner = self.width, self.heads * self.head
        norms, attention, mlp = 4 * w, 4 * w * inner + 3 * inner + w, 2 * w * self.hidden + self.hidden + w
        return norms + attention + mlp

    @property
    def parameters(self) -> int:
        """Of all blocks; a block that both towers share counts once. Embeddings and projections, which do not grow, are left out."""
        return (self.image + self.text + self.shared) * self.block

    def refuse_smaller(self, old: Architecture) -> None:
        """Raises ArchitectureInvalid where this one cannot hold the old one."""
        for name, value in asdict(self).items():
            before = getattr(old, name)
            same = name in ("width", "head")
            if value < before or (same and value != before):
                must = "stay" if same else "be at least"
                raise ArchitectureInvalid(
                    f"{name} would go from {before} to {value}; to inherit the weights it must {must} {before}."
                )


def larger(
    old: Architecture, coordinates: Sequence[str], blocks: int, widening: float, budget: float
) -> dict[str, Architecture]:
    """The architectures a growth step away, by the name of what grows: "none" first, then those within the budget.

    Args:
        old: where growth starts.
        coordinates: what may grow, of "image", "text", "shared" (by `blocks` blocks), "hidden" (by the factor `widening`), "heads" (by one).
        blocks: how many blocks a tower grows by.
        widening: factor of the MLPs' width, above 1.
        budget: largest ratio of `parameters`, new to old.

    Raises ArchitectureInvalid for an unknown coordinate, and where nothing but standing still is within the budget.
    """
    unknown = next((name for name in coordinates if name not in COORDINATES), None)
    if unknown is not None:
        raise ArchitectureInvalid(f"'{unknown}' is nothing that grows; known: {', '.join(COORDINATES)}.")
    steps = {
        **{name: replace(old, **{name: getattr(old, name) + blocks}) for name in ("image", "text", "shared")},
        "hidden": replace(old, hidden=max(old.hidden + 1, round(old.hidden * widening))),
        "heads": replace(old, heads=old.heads + 1),
    }
    within = {name: steps[name] for name in coordinates if steps[name].parameters <= budget * old.parameters}
    if coordinates and not within:
        cheapest = min(steps[name].parameters for name in coordinates) / old.parameters
        raise ArchitectureInvalid(
            f"budget={budget} leaves nothing to grow: of {', '.join(coordinates)} the smallest step takes {cheapest:.2f} times the parameters. "
            "Allow more, or grow by fewer blocks."
        )
    return {"none": old, **within}
