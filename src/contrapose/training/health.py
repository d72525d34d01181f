"""Is it learning, collapsed, or merely at chance? Figures of a step's embeddings, read off at most 512 rows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from contrapose import geometry

ROWS = 512  # enough for a rank of a few hundred dimensions, and little beside a step


def embedding_figures(embeddings: Mapping[str, Tensor]) -> dict[str, float]:
    """Alignment of the first two views, uniformity and effective rank of the first, its number of dimensions; empty without embeddings."""
    flat = [rows.float() for rows in embeddings.values() if rows.ndim == 2 and len(rows) > 1]
    if not flat:
        return {}
    first = flat[0][:ROWS]
    figures = {
        "uniformity": float(geometry.uniformity(first)),
        "effective_rank": float(geometry.effective_rank(first)),
        "most_rank": float(min(first.shape)),
    }
    if len(flat) > 1 and flat[0].shape == flat[1].shape:
        figures["alignment"] = float(geometry.alignment(first, flat[1][:ROWS]))
    return figures
