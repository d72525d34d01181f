"""MEOW: a coarse view of a graph against a fine one, with negatives weighed by clusters, and prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import ArgumentInvalid, NoNegatives, SettingInvalid, ShapesDiffer
from contrapose.graph._contrast import GraphSettings, projected, refuse_processes, whole_batches
from contrapose.graph._options import Counts
from contrapose.graph.data import NODE
from contrapose.objectives import PairWeight, decoupled, info_nce, log_partition
from contrapose.objectives._arguments import check_choice, check_rows, check_temperature
from contrapose.training.method import Card, Method, Terms

ITERATIONS = 20  # of k-means, as in the official code
ALL = slice(None)


class MEOW(Method):
    r"""Learn vectors of the nodes of one type in a graph of several, from meta-paths, without labels and without choosing positives.

    Pick it for papers with authors and subjects, films with actors and keywords: one graph, one type to embed, and meta-paths from
    that type to itself. It needs no threshold for positives, as `heco` does; `adameow` learns its weights instead of clustering. What the
    paper says of clusters was not seen: on ACM its vectors fall into the classes less than those of `weighting="none", prototype_weight=0`,
    here and by the official code. The encoder is transductive: nodes that come later have no vector.

    Every node has two vectors, both through one head tanh(W z + b) and of unit length: $c_i$ from the coarse view (its own features over all
    meta-paths' adjacencies together), $f_i$ from the fine one (the encoder's own: each meta-path with the nodes along it, and a masked copy).
    $f$ is clustered $M$ times in every step, into $k_1, …, k_M$ clusters, and $\gamma_{ij}$ counts the clusterings that part $i$ and $j$:

    $$L = -\frac{1}{N} \sum_i \log \frac{e^{c_i \cdot f_i/\tau}}{\sum_j \gamma_{ij} e^{c_i \cdot f_j/\tau}}
          - \frac{\lambda}{M N} \sum_m \sum_i \log \frac{e^{c_i \cdot p_{a_m(i)}/\varphi_{a_m(i)}}}{\sum_{q} e^{c_i \cdot p_q/\varphi_q}}.$$

    Nodes that share a cluster in all clusterings are no negatives at all, and the positive does not stand in the first denominator, so the
    first term may fall below 0. $p_q$ are the clusters' unit centroids and $\varphi_q$ how concentrated they are. At chance the terms are
    log sum_j gamma_ij and log k on the mean. `weighting="none", prototype_weight=0` is plain InfoNCE between the two views.

    Where paper and official code differ, or the code surprises: after the filter by PathSim the code transposes the adjacency, so that
    nodes whom nobody chose gather from nobody; here a node gathers from those that it chose (`encoder.orientation=transposed` for the
    code's, which learns slower: with 20 labels of ACM's papers the code has a macro-F1 of 0.89 and 0.70 after 60 epochs from two seeds, this
    one 0.91 on the mean). Prototypes' denominators are a sum over clusters; the code's is N times their mean (`denominator="official"`, a
    constant more, no gradient). The concentration takes inner products where PCL takes distances, so that tighter clusters count as
    looser (`concentration="similarity"`, the code's and the default; `"distance"` is PCL's).
    Nodes belong to the centroid with the largest inner product, centroids not normalised (`assignment="nearest"`: the nearest one). The
    code's k-means is faiss on a GPU, five starts; this is scikit-learn's, one start. Early stopping on the training loss is left out: it
    drifts to where clusters degenerate; 60 epochs are the default, and `select` with `patience` stops by a development score.

    Yu and Li, SDM 2023; official code jianxiangyu/MEOW, folder code_meow, at 6a072d7.

    **Pitfalls.** Fewer than about 60 epochs may leave it below raw features. Where all nodes fall into one cluster of every clustering no
    negative is left, and the run stops saying so: more clusters, or a lower learning rate. One process; memory grows with nodes and edges
    and not with pairs of nodes, time with pairs: from some 50,000 nodes on, give a `batch_size`.
    """

    card = Card(
        modality="graph",
        title="MEOW: meta-path contexts and negatives weighed by clusters",
        paper="Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Weighted Negative Samples",
        venue="SDM",
        year=2023,
        url="https://arxiv.org/abs/2212.13847",
        columns=(NODE,),
    )

    class Settings(GraphSettings):
        # the official code's for ACM
        learning_rate: PositiveFloat = Field(7e-4, description="Learning rate.")
        temperature: PositiveFloat = Field(
            0.4, description="Divides the cosines, and the mean concentration of clusters."
        )
        clusters: Counts = Field(
            (),
            description="Clusters of each clustering, as 100,300; empty: a 40th and a 13th of the nodes, which is ACM's.",
        )
        weighting: Literal["clusters", "none"] = Field(
            "clusters", description="Of negatives; none: all count 1, the positive among them."
        )
        prototype_weight: NonNegativeFloat = Field(1.0, description="Of the prototypes' term; 0 leaves it out.")
        denominator: Literal["sum", "official"] = Field(
            "sum", description="Of the prototypes' term; they differ by a constant."
        )
        concentration: Literal["similarity", "distance"] = Field(
            "similarity", description="What a cluster's concentration is made of."
        )
        assignment: Literal["product", "nearest"] = Field("product", description="Which centroid a node belongs to.")

    def build(self, facts: Facts) -> None:
        self.projection = nn.Linear(self.encoder.dim, self.encoder.dim)
        size = min(self.settings.batch_size, facts.rows)
        self.clusters = self.settings.clusters or tuple(max(2, size // share) for share in (40, 13))
        if self.clustered and not all(2 <= k < size for k in self.clusters):
            raise SettingInvalid(
                f"clusters={','.join(map(str, self.clusters))} and {size:,} nodes in a step: each clustering has at least 2 clusters and fewer than nodes."
            )

    @property
    def clustered(self) -> bool:
        return self.settings.weighting == "clusters" or self.settings.prototype_weight > 0

    def refuse(self, data: Data, protocols: Sequence[object] = ()) -> None:
        refuse_processes("meow")

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return whole_batches(data, self.settings.batch_size, generator)

    def training_step(self, batch: Batch) -> Terms:
        with self.clock("encode"):
            nodes = batch["node"]
            coarse, fine = (projected(view[nodes], self.projection) for view in self.encoder.coarse_and_fine())
        self.embeddings = {"coarse": coarse.detach(), "fine": fine.detach()}
        settings, found = self.settings, []
        if self.clustered:
            with self.clock("clusters"):
                found = [self.cluster(fine.detach(), k, seed) for seed, k in enumerate(self.clusters)]
        with self.clock("loss"):
            if settings.weighting == "clusters":
                terms = {
                    "info_nce": weighed_info_nce(
                        coarse, fine, [each.own for each in found], temperature=settings.temperature
                    )
                }
            else:
                terms = {"info_nce": info_nce(coarse, fine, temperature=settings.temperature)}
            if settings.prototype_weight:
                term = torch.stack(
                    [prototype_nce(coarse, each, denominator=settings.denominator) for each in found]
                ).mean()
                terms["prototypes"] = settings.prototype_weight * term
        self.at_chance = self.chances(len(nodes), found)
        return terms

    def cluster(self, vectors: Tensor, k: int, seed: int) -> Clusters:
        return clusters(
            vectors, k, temperature=self.settings.temperature, seed=seed,
            concentration=self.settings.concentration, assignment=self.settings.assignment,
        )  # fmt: skip

    def chances(self, n: int, found: Sequence[Clusters]) -> dict[str, float]:
        values = {"info_nce": math.log(n)}
        if self.settings.weighting == "clusters":
            apart = sum(n - torch.bincount(each.own)[each.own] for each in found)
            values["info_nce"] = float(apart.double().log().mean())
        if self.settings.prototype_weight:
            sizes = [n if self.settings.denominator == "official" else k for k in self.clusters]
            values["prototypes"] = self.settings.prototype_weight * sum(map(math.log, sizes)) / len(sizes)
        return values

    def chance(self, batch: Batch) -> dict[str, float]:
        return self.at_chance

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1


class Clusters(NamedTuple):
    """One clustering: own (n,), the cluster of each row; centroids (k, d), unit rows; density (k,), their concentrations phi."""

    own: LongTensor
    centroids: Tensor
    density: Tensor


def clusters(
    vectors: Tensor,
    k: int,
    *,
    temperature: float,
    seed: int = 0,
    concentration: Literal["similarity", "distance"] = "similarity",
    assignment: Literal["product", "nearest"] = "product",
) -> Clusters:
    """k-means of (n, d) unit rows into k clusters, by scikit-learn from one random start, 20 iterations at most.

    assignment: "product", the centroid with the largest x · c, c the mean of its rows and not normalised (official); or "nearest".
    concentration: see `density`. The same seed gives the same clusters. Raises ArgumentInvalid unless 2 <= k < n and for an unknown word,
    ShapesDiffer, NonFinite, TemperatureInvalid.
    """
    from sklearn.cluster import KMeans

    check_rows("vectors", vectors, ("n", "d"))
    check_choice("concentration", concentration, ("similarity", "distance"))
    check_choice("assignment", assignment, ("product", "nearest"))
    if not 2 <= k < len(vectors):
        raise ArgumentInvalid(f"k, the number of clusters, is at least 2 and below the {len(vectors)} rows; got {k}.")
    rows = vectors.detach().float()
    means = (
        KMeans(k, n_init=1, init="random", max_iter=ITERATIONS, random_state=seed)
        .fit(rows.cpu().numpy())
        .cluster_centers_
    )
    raw = torch.from_numpy(means).to(rows)
    products = rows @ raw.T
    squares = 1 + raw.square().sum(1) - 2 * products  # of unit rows
    own = products.argmax(1) if assignment == "product" else squares.argmin(1)
    values = (products if concentration == "similarity" else squares).gather(1, own[:, None])[:, 0]
    centroids = nn.functional.normalize(raw, dim=1)
    return Clusters(
        own, centroids.to(vectors.dtype), density(values, own, k, temperature=temperature).to(vectors.dtype)
    )


def density(values: Tensor, own: LongTensor, k: int, *, temperature: float) -> Tensor:
    """How concentrated each of k clusters is, phi (k,): what divides the products with its prototype.

    values: (n,), of each row with its cluster's centroid: the inner product (official), or the squared distance (PCL, Li et al., 2021).
    own: (n,), its cluster. Of a cluster with more than one row, mean(sqrt(value)) / log(rows + 5); the others take the largest. Then cut to the
    10th and 90th percentile and scaled to a mean of `temperature`, which all are where no cluster has two rows with a value above 0.
    Raises ShapesDiffer, ArgumentInvalid, TemperatureInvalid.
    """
    check_temperature(temperature)
    if values.shape != own.shape or values.ndim != 1:
        raise ShapesDiffer(
            f"values and own hold one number for each row, (n,); got {tuple(values.shape)} and {tuple(own.shape)}."
        )
    if len(own) == 0 or not 0 <= int(own.min()) <= int(own.max()) < k:
        raise ArgumentInvalid(f"own names clusters 0 to {k - 1}.")
    sizes = torch.bincount(own, minlength=k)
    roots = torch.zeros(k, dtype=values.dtype, device=values.device).index_add_(0, own, values.clamp(min=0).sqrt())
    found = torch.where(sizes > 1, roots / sizes.clamp(min=1) / (sizes + 5).to(values.dtype).log(), 0)
    found = torch.where(sizes > 1, found, found.max())
    if not found.any():
        return torch.full_like(found, temperature)
    found = found.clamp(torch.quantile(found, 0.1), torch.quantile(found, 0.9))
    return temperature * found / found.mean()


def times_apart(own: Sequence[LongTensor], rows: slice = ALL, columns: slice = ALL) -> Tensor:
    """gamma, (r, c) float32: in how many of M clusterings, each (n,), the rows and columns of two slices stand in different clusters.

    Raises ArgumentInvalid for no clustering.
    """
    if not len(own):
        raise ArgumentInvalid("own holds no clustering; give one at least.")
    labels = [
        each.float() for each in own
    ]  # numbers of clusters are exact in it, and it is compared several times as fast as integers
    found = torch.ne(labels[0][rows, None], labels[0][columns]).float()
    for each in labels[1:]:
        found += torch.ne(each[rows, None], each[columns], out=torch.empty_like(found))
    return found


def weighed_info_nce(
    coarse: Tensor, fine: Tensor, own: Sequence[LongTensor], *, temperature: float, strict: bool = False
) -> Tensor:
    """-log exp(c_i · f_i / t) / sum_j gamma_ij exp(c_i · f_j / t), the mean over i; gamma by `times_apart` from M clusterings `own`.

    coarse and fine: (n, d) unit rows. In tiles: neither similarities nor gamma are ever made whole. strict: rows are looked at, and refused
    where their lengths are further than 1e-3 from 1.
    Raises NoNegatives when a row shares its cluster with all others in every clustering; ShapesDiffer, ArgumentInvalid.
    """
    n = len(fine)
    if strict:
        for name, rows in {"coarse": coarse, "fine": fine}.items():
            lengths = rows.detach().norm(dim=1)
            if bool(((lengths - 1).abs() > 1e-3).any()):
                row = int((lengths - 1).abs().argmax())
                raise ArgumentInvalid(
                    f"{name} must have rows of length 1; row {row} has {lengths[row]:g}. Normalise them."
                )
    if any(each.shape != (n,) for each in own) or not len(own):
        raise ShapesDiffer(
            f"each clustering names a cluster of each of the {n} rows; got {[tuple(each.shape) for each in own]}."
        )
    if bool((sum(n - torch.bincount(each)[each] for each in own) == 0).any()):
        raise NoNegatives(
            f"all {n} rows stand in one cluster of every clustering, so none has a negative; the vectors have collapsed, or there are too few clusters."
        )
    pair = PairWeight(lambda rows, columns: times_apart(own, rows, columns).log_())
    return decoupled(coarse, fine, temperature=temperature, pair=pair, similarity="dot")


def prototype_nce(coarse: Tensor, found: Clusters, *, denominator: Literal["sum", "official"] = "sum") -> Tensor:
    """-log exp(c_i · p_a(i) / phi_a(i)) / sum_q exp(c_i · p_q / phi_q), the mean over i, a scalar.

    coarse: (n, d). denominator: "official" has n times the mean over clusters in place of the sum, which adds log(n / k).
    Raises ArgumentInvalid for another word, ShapesDiffer unless `found` is of as many rows.
    """
    check_choice("denominator", denominator, ("sum", "official"))
    if not len(coarse) or len(found.own) != len(coarse):
        raise ShapesDiffer(
            f"{len(coarse)} rows of coarse, and clusters of {len(found.own)}; give as many, one at least."
        )
    prototypes = found.centroids / found.density[:, None]
    own = (coarse * prototypes[found.own]).sum(1)
    loss = (log_partition(coarse, prototypes, temperature=1.0, similarity="dot") - own).mean()
    return loss if denominator == "sum" else loss + math.log(len(coarse) / len(prototypes))
