"""Where negatives come from besides the batch; all state lies in persistent buffers."""

from contrapose.negatives.mining import mine_negatives
from contrapose.negatives.momentum import MomentumCopy
from contrapose.negatives.queue import Queue, Stored

__all__ = ["MomentumCopy", "Queue", "Stored", "mine_negatives"]
