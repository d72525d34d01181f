"""The private tile engine: sums over all pairs of rows, without ever holding all pairs."""

from contrapose.objectives._tiles.log_sum_exp import log_sum_exp, own_and_log_sum_exp, plain_log_sum_exp, tile_bytes
from contrapose.objectives._tiles.pairs import PairWeight
from contrapose.objectives._tiles.rows import unit_rows
from contrapose.objectives._tiles.softmax_mean import softmax_mean
from contrapose.objectives._tiles.softplus_sum import softplus_sum

__all__ = [
    "PairWeight",
    "log_sum_exp",
    "own_and_log_sum_exp",
    "plain_log_sum_exp",
    "softmax_mean",
    "softplus_sum",
    "tile_bytes",
    "unit_rows",
]
