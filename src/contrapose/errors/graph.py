"""Graphs that cannot be read, or that a method cannot learn from."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class GraphInvalid(ContraposeError):
    """A graph whose parts do not fit: an edge to a node that is not there, features for fewer nodes than edges name, no edges at all.

    **Why it matters.** A node number that is off by one joins every node with another's neighbours, and nothing looks wrong afterwards.

    **Example.** `edges/paper-author.csv` names author 7167, and `nodes/author.npz` has 7,167 rows, 0 to 7166.

    **Mend.** The message names the file and the line. Nodes are numbered from 0 in the order of their features.
    """

    code = "CL-DATA-070"


class MetaPathInvalid(ContraposeError):
    """A meta-path that does not lead from the target type back to it, over types and edges that the graph has.

    **Why it matters.** PathSim compares nodes of one type by the paths between them, which is defined for paths that read the same
    both ways.

    **Example.** `paper-author` ends at authors; `paper-venue-paper` where the graph has no venues.

    **Mend.** Name a path such as `paper-author-paper`; the message lists the edges that there are.
    """

    code = "CL-DATA-071"


class AdjacencyInvalid(ContraposeError):
    """A matrix between nodes of one type that cannot be normalised or compared: not square, a diagonal of 0, a row without entries.

    **Why it matters.** PathSim divides by the diagonal and the normalisation by row sums; 0 would put NaN into every vector.

    **Example.** A meta-path adjacency from which the paths of a node to itself were left out.

    **Mend.** Count a node's paths to itself on the diagonal; at least 1.
    """

    code = "CL-DATA-072"


class NodeUnknown(ContraposeError):
    """A node number that the graph does not have.

    **Why it matters.** The vectors of a graph encoder are those of its own nodes; there is none for another one.

    **Example.** `model.encode([4019])` for a graph whose papers are numbered 0 to 4018.

    **Mend.** Give numbers of nodes of the target type. For new nodes, train on the graph that has them.
    """

    code = "CL-DATA-073"


class GraphAbsent(ContraposeError):
    """An encoder of graphs is to be built, and no graph was given to build it for.

    **Why it matters.** Its shapes and its neighbourhoods are those of one graph.

    **Example.** An encoder's record from a run on a graph in memory, without that graph.

    **Mend.** Hand the graph over as the data; or load the model folder, which holds what it needs of the graph.
    """

    code = "CL-MODEL-070"


class ProcessesTooMany(ContraposeError):
    """A method that encodes a graph as a whole was started in several processes.

    **Why it matters.** Each process would do the whole work again: nothing would be faster.

    **Example.** `torchrun --nproc-per-node 4 -m contrapose train meow …`.

    **Mend.** Start one process; it uses all the cores, or the GPU.
    """

    code = "CL-TRAIN-070"
