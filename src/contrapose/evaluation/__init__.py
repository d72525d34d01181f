"""Evaluation that knows no modality: protocols, intervals, results."""

from contrapose.evaluation.behaviour import AtTemperature, Behaviour, behaviour
from contrapose.evaluation.classification import classification, one_against_rest
from contrapose.evaluation.clustering import clustering
from contrapose.evaluation.intervals import Interval, bootstrap, bootstrap_difference, bootstrap_figures
from contrapose.evaluation.pair_labels import pair_label_scores, pair_labels
from contrapose.evaluation.probes import (
    few_shot,
    knn_probe,
    linear_probe,
    linear_probe_probabilities,
    majority_class,
    strength_by_development,
)
from contrapose.evaluation.ranking import full_ranking
from contrapose.evaluation.regression import knn_regression, regression, ridge_probe
from contrapose.evaluation.result import Result, Score, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval, retrieval_by_score
from contrapose.evaluation.similarity import length_bias, pair_cosines, spearman, sts

__all__ = [
    "AtTemperature",
    "Behaviour",
    "Interval",
    "Result",
    "Retrieval",
    "Score",
    "behaviour",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_figures",
    "classification",
    "clustering",
    "few_shot",
    "full_ranking",
    "knn_probe",
    "knn_regression",
    "length_bias",
    "linear_probe",
    "linear_probe_probabilities",
    "majority_class",
    "one_against_rest",
    "pair_cosines",
    "pair_label_scores",
    "pair_labels",
    "regression",
    "retrieval",
    "retrieval_by_score",
    "ridge_probe",
    "scores",
    "spearman",
    "strength_by_development",
    "sts",
]
