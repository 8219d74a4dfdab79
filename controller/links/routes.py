"""Delay-weighted shortest paths of one step: out of which port each node sends towards each destination.

Ground nodes never relay: they are only the first and the last hop. All delays are symmetric. Node and port indices are
the timeline's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.timeline import BoolArray, FloatArray, IntArray, LinkTable, Sky

NONE = -1
"""No port, no node, no path."""

# A hop costs 1/4096 µs besides its delay: of paths of one delay the one with fewer hops wins, and no weight is zero.
# Weights stay whole numbers well below 2^53, so sums of them in floats are exact and comparisons of them too.
_WEIGHT_A_US = 4096.0


@dataclass(frozen=True)
class Ports:
    """What is behind every port at one step. Shapes: both (n_node, n_port), n_port that of the node with the most."""

    peer: IntArray  # node index, or NONE where the port is dark
    delay_us: IntArray  # one way; 0 where the port is dark


def ports(n_node: int, links: LinkTable, sky: Sky, usable: BoolArray) -> Ports:
    """What is behind the nodes' ports at one step. Shapes: usable (n_up,), the rows of sky that are not masked."""
    rows = sky.link[usable]
    n_port = 1 + int(max(links.port_a.max(initial=0), links.port_b.max(initial=0)))
    peer = np.full((n_node, n_port), NONE, np.int64)
    delay_us = np.zeros((n_node, n_port), np.int64)
    for near, port, far in (
        (links.a[rows], links.port_a[rows], links.b[rows]),
        (links.b[rows], links.port_b[rows], links.a[rows]),
    ):
        peer[near, port] = far
        delay_us[near, port] = sky.delay_us[usable]
    return Ports(peer, delay_us)


def next_ports(n_node: int, links: LinkTable, sky: Sky, usable: BoolArray, is_ground: BoolArray) -> IntArray:
    """The port of `node` that leads towards `destination`, or NONE. Shape (n_node, n_node): [node, destination].

    Shapes: usable (n_up,), the rows of sky that are not masked; is_ground (n_node,). Of paths of one delay the one with
    fewer hops is taken, of equals the lowest port: the answer depends on nothing else.
    """
    panel = ports(n_node, links, sky, usable)
    node, port = np.nonzero(panel.peer != NONE)
    peer = panel.peer[node, port]
    weight: FloatArray = panel.delay_us[node, port].astype(np.float64) * _WEIGHT_A_US + 1.0
    distance = _distances(n_node, node, peer, weight, is_ground)

    # A port is right for a destination if going through it is as near as can be. From the peer on, a ground node leads
    # to nothing but itself.
    onward = distance[peer]
    relays = ~is_ground[peer]
    onward[~relays] = np.inf
    onward[~relays, peer[~relays]] = 0.0
    is_right = (weight[:, None] + onward == distance[node]) & np.isfinite(onward)
    result = np.full((n_node, n_node), NONE, np.int64)
    for candidate in range(panel.peer.shape[1] - 1, -1, -1):  # the lowest port is written last and stays
        rows = np.flatnonzero(port == candidate)
        at, destination = np.nonzero(is_right[rows])
        result[node[rows[at]], destination] = candidate
    np.fill_diagonal(result, NONE)
    return result


def _distances(n_node: int, node: IntArray, peer: IntArray, weight: FloatArray, is_ground: BoolArray) -> FloatArray:
    """Shortest distances between all nodes (n_node, n_node), inf without a path, no ground node in between.

    Each ground node is two vertices: one that only sends, its own index, and one that only receives. So nothing can
    pass through it.
    """
    receiver = np.arange(n_node)
    n_ground = int(is_ground.sum())
    receiver[is_ground] = n_node + np.arange(n_ground)
    n_vertex = n_node + n_ground
    graph = csr_array((weight, (node, receiver[peer])), shape=(n_vertex, n_vertex))
    distance: FloatArray = dijkstra(graph, directed=True, indices=np.arange(n_node))[:, receiver]
    np.fill_diagonal(distance, 0.0)
    return distance


def path(routes: IntArray, panel: Ports, source: int, destination: int) -> list[int]:
    """The nodes from source to destination, both included; empty where there is no way. `routes` is from next_ports."""
    nodes = [source]
    while nodes[-1] != destination:
        port = int(routes[nodes[-1], destination])
        peer = NONE if port == NONE else int(panel.peer[nodes[-1], port])
        if peer == NONE or len(nodes) > len(routes):
            return []
        nodes.append(peer)
    return nodes


@dataclass(frozen=True)
class PathCosts:
    """Paths of pairs of nodes. Shapes: both (n_pair,)."""

    delay_us: IntArray  # sum of the one-way delays, or NONE
    hops: IntArray  # links on the way, or NONE


def path_costs(routes: IntArray, panel: Ports, source: IntArray, destination: IntArray) -> PathCosts:
    """What the paths of many pairs cost, all walked hop by hop together. Shapes: source and destination (n_pair,)."""
    at = source.copy()
    delay_us = np.zeros(len(source), np.int64)
    hops = np.zeros(len(source), np.int64)
    on_way = np.flatnonzero(at != destination)
    for _ in range(len(routes)):
        if not len(on_way):
            break
        port = routes[at[on_way], destination[on_way]]
        peer = np.where(port == NONE, NONE, panel.peer[at[on_way], port])
        lost = on_way[peer == NONE]
        delay_us[lost] = hops[lost] = NONE
        goes_on = peer != NONE
        on_way, port, peer = on_way[goes_on], port[goes_on], peer[goes_on]
        delay_us[on_way] += panel.delay_us[at[on_way], port]
        hops[on_way] += 1
        at[on_way] = peer
        on_way = on_way[at[on_way] != destination[on_way]]
    return PathCosts(delay_us, hops)
