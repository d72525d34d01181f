"""Evaluation that knows no modality: protocols, intervals, results."""

from contrapose.evaluation.intervals import Interval, bootstrap, bootstrap_difference
from contrapose.evaluation.result import Result, Score, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval, retrieval_by_score

__all__ = [
    "Interval",
    "Result",
    "Retrieval",
    "Score",
    "bootstrap",
    "bootstrap_difference",
    "retrieval",
    "retrieval_by_score",
    "scores",
]
