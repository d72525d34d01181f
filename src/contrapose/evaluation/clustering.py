"""Do embeddings fall into clusters that are the classes? k-means, and how far it agrees with the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from scipy.sparse import issparse as is_sparse

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite


def clustering(
    embeddings: ArrayLike | csr_matrix, labels: ArrayLike, *, draws: int = 10, seed: int = 0, cosine: bool = True
) -> dict[str, np.ndarray]:
    """ "NMI" and "ARI" (draws,): agreement of k-means with the labels, for as many clusters as there are labels.

    k-means (k-means++ start, one start a draw) depends on its start, so it runs `draws` times, as graph methods report it;
    `scores(clustering(…))` gives the mean with an interval over the draws. NMI: mutual information of clusters and labels over the
    mean of their entropies, 0 to 1, above 0 by chance. ARI: share of pairs of rows on which both agree, corrected for chance: 0 at chance.

    embeddings: (n, d), dense, or sparse as SciPy has it. labels: (n,). cosine: rows are normalised first; False: Euclidean, on rows as they are (HeCo's code).
    Raises TooFewValues for fewer than two labels, or a label a row; EvaluationShapesDiffer, ValuesNotFinite, EvaluationSettingInvalid.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.preprocessing import normalize

    rows = csr_matrix(embeddings) if is_sparse(embeddings) else np.asarray(embeddings, dtype=np.float64)
    labels = np.asarray(labels)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise EvaluationShapesDiffer(
            f"rows of shape (n, d) and n labels are needed; got {rows.shape} and {labels.shape}."
        )
    if not np.isfinite(rows.data if is_sparse(rows) else rows).all():
        raise ValuesNotFinite("the embeddings hold NaN or infinity; they have no clusters.")
    if draws < 1:
        raise EvaluationSettingInvalid(f"draws must be 1 or more; got {draws}.")
    clusters = len(np.unique(labels))
    if not 2 <= clusters < len(labels):
        raise TooFewValues(
            f"{len(labels)} rows with {clusters} different labels: at least two are needed, and fewer than rows."
        )
    rows = normalize(rows) if cosine else rows
    found = [KMeans(clusters, n_init=1, random_state=seed + draw).fit_predict(rows) for draw in range(draws)]
    return {
        "NMI": np.array([normalized_mutual_info_score(labels, each) for each in found]),
        "ARI": np.array([adjusted_rand_score(labels, each) for each in found]),
    }
