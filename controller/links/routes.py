"""Delay-weighted shortest paths: out of which port each node sends towards each destination, step after step.

Ground nodes never relay: they are only the first and the last hop. All delays are symmetric. Node and port indices are
the timeline's. A `Router` remembers the trees of the step before and repairs them; the answer is that of `next_ports`,
which knows nothing of any step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.timeline import BoolArray, FloatArray, IntArray, LinkTable, Sky

NONE = -1
"""No port, no node, no path."""

WITHDRAWN = -1
"""The port of a route that goes."""

# A hop costs 2^-20 µs besides its delay: of paths of one delay the one with fewer hops wins, and no weight is zero.
# Weights stay whole numbers well below 2^53, so sums of them in floats are exact and comparisons of them too, for
# paths of up to a million hops and two hours.
_HOP_BITS = 20
_WEIGHT_A_US = float(1 << _HOP_BITS)

# Once so many of the trees have lost a branch, growing all of them anew is as quick as finding out which.
_BROKEN_TREES_RATIO = 0.5


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


def next_ports(
    n_node: int, links: LinkTable, sky: Sky, usable: BoolArray, is_ground: BoolArray, destinations: IntArray
) -> IntArray:
    """The port of each node that leads towards each destination, or NONE. Shape (n_node, n_destination).

    Shapes: usable (n_up,), the rows of sky that are not masked; is_ground (n_node,); destinations (n_destination,),
    different nodes, a column of the answer each. Of paths of one delay the one with fewer hops is taken, of equals the
    lowest port: the answer depends on nothing else.
    """
    return Router(n_node, links, is_ground, destinations).next_ports(sky, usable)


@dataclass(frozen=True)
class _Network:
    """The ports of one step as arcs between vertices. Shapes: all (n_node, n_port).

    A ground node is two vertices: one that only sends, its own index, and one that only receives, so nothing can pass
    through it. The last vertex is where dark ports lead: nothing comes from there.
    """

    peer: IntArray  # node index, or NONE
    vertex: IntArray  # that receives behind the port
    weight: FloatArray  # inf where the port is dark


class Router:
    """Routes of one sky towards some nodes, step after step.

    Delays change at every step and trees hardly do. So the trees of the step before are costed anew, in order of hops;
    arcs that lead nearer than a tree does are found all at once, and what they shorten is followed from neighbour to
    neighbour. Only a destination whose tree has lost a branch gets a new tree.
    """

    def __init__(self, n_node: int, links: LinkTable, is_ground: BoolArray, destinations: IntArray) -> None:
        self.destinations = destinations
        self._n_node, self._links, self._is_ground = n_node, links, is_ground
        self._receiver = np.arange(n_node)
        self._receiver[is_ground] = n_node + np.arange(int(is_ground.sum()))
        self._n_vertex = n_node + int(is_ground.sum()) + 1
        self._columns = np.arange(len(destinations))
        self._panel: Ports | None = None
        self._network: _Network | None = None
        self._distance = np.empty((0, 0))  # (n_vertex, n_destination), exact at all vertices but the senders of ground
        self._next_port: IntArray = np.empty((0, 0), np.int64)

    def next_ports(self, sky: Sky, usable: BoolArray) -> IntArray:
        """The routes of one step, as `next_ports`; the very array of the call before if nothing has changed since."""
        panel = ports(self._n_node, self._links, sky, usable)
        if self._panel is not None and _same(panel, self._panel):
            return self._next_port
        before, network = self._network, self._as_network(panel)
        repaired = None if before is None else self._repaired(before, network)
        if repaired is None:
            self._distance = self._grown(network, self.destinations)
            _, repaired = self._best(network)
        repaired[self.destinations, self._columns] = NONE
        self._panel, self._network, self._next_port = panel, network, repaired
        return repaired

    def _as_network(self, panel: Ports) -> _Network:
        is_dark = panel.peer == NONE
        weight = np.where(is_dark, np.inf, panel.delay_us * _WEIGHT_A_US + 1.0)
        return _Network(panel.peer, np.where(is_dark, self._n_vertex - 1, self._receiver[panel.peer]), weight)

    def _grown(self, network: _Network, destinations: IntArray) -> FloatArray:
        """Shortest distances of all vertices to some destinations, from nothing. Shape (n_vertex, n_destination).

        Searched from the destinations, for delays are the same both ways. Arcs of satellites to ground nodes are left
        out: what they would reach is never passed through.
        """
        n_node = self._n_node
        node, port = np.nonzero(network.peer != NONE)
        peer, weight = network.peer[node, port], network.weight[node, port]
        kept = ~self._is_ground[peer]
        node, peer, weight = node[kept], peer[kept], weight[kept]
        order = np.lexsort((weight, peer, node))
        node, peer, weight = node[order], peer[order], weight[order]
        shortest = np.ones(len(node), np.bool_)  # of parallel links; a sparse matrix would add them up
        shortest[1:] = (np.diff(node) != 0) | (np.diff(peer) != 0)
        row_start = np.searchsorted(node[shortest], np.arange(n_node + 1))
        graph = csr_array((weight[shortest], peer[shortest], row_start), shape=(n_node, n_node))
        distance = np.full((self._n_vertex, len(destinations)), np.inf)
        distance[:n_node] = dijkstra(graph, directed=True, indices=destinations).T
        distance[self._receiver[destinations], np.arange(len(destinations))] = 0.0
        return distance

    def _best(self, network: _Network) -> tuple[FloatArray, IntArray]:
        """The shortest distance through any port, and the lowest port that has it. Shapes (n_node, n_destination)."""
        shape = (self._n_node, len(self.destinations))
        best, beyond = np.full(shape, np.inf), np.zeros(shape, np.int16)  # beyond: one more than the port
        for port in range(network.peer.shape[1]):
            lit = np.flatnonzero(network.peer[:, port] != NONE)
            if 2 * len(lit) > self._n_node:  # all rows cost less than choosing many
                through = self._distance.take(network.vertex[:, port], axis=0)
                through += network.weight[:, port, None]
                # Ports come in rising order, so the last that is nearer than all before it is the greatest of those
                # that are: sums and maxima, for numpy is slow where it must decide value by value.
                np.maximum(beyond, (through < best) * np.int16(port + 1), out=beyond)
                np.minimum(best, through, out=best)
            else:
                through = self._distance[network.vertex[lit, port]] + network.weight[lit, port, None]
                beyond[lit] = np.maximum(beyond[lit], (through < best[lit]) * np.int16(port + 1))
                best[lit] = np.minimum(best[lit], through)
        return best, beyond.astype(np.int64) - 1

    def _repaired(self, before: _Network, network: _Network) -> IntArray | None:
        """The routes, from the trees of the step before; None if too many of them are broken."""
        broken = self._cost_trees(before, network)
        if len(broken) > _BROKEN_TREES_RATIO * len(self.destinations):
            return None
        self._distance[:, broken] = self._grown(network, self.destinations[broken])
        best, port = self._best(network)
        is_nearer = best < self._distance[: self._n_node]
        is_nearer[self._is_ground] = False
        nearer = np.flatnonzero(is_nearer)
        self._distance.reshape(-1)[nearer] = best.take(nearer)
        node, column = np.divmod(self._shorten(network, nearer), len(self.destinations))
        through = network.weight[node] + self._distance[network.vertex[node], column[:, None]]
        choice = np.argmin(through, axis=1)  # the first of equals: the lowest port
        port[node, column] = np.where(np.isinf(through[np.arange(len(node)), choice]), NONE, choice)
        return port

    def _cost_trees(self, before: _Network, network: _Network) -> IntArray:
        """Give every satellite the distance that the trees of the step before have now; the columns with a lost branch.

        A port that leads elsewhere than before is a lost branch. The hops of a distance are its lowest bits.
        """
        n_port, n_destination = network.peer.shape[1], len(self.destinations)
        in_tree = self._next_port != NONE
        in_tree[self._is_ground] = False
        pair = np.flatnonzero(in_tree)
        flat = self._distance.reshape(-1)
        hops = (flat.take(pair).astype(np.int64) & ((1 << _HOP_BITS) - 1)).astype(np.uint32)
        if hops.max(initial=0) < 1 << 16:
            hops = hops.astype(np.uint16)  # which numpy sorts many times faster
        pair = pair.take(np.argsort(hops, kind="stable"))
        level_start = np.concatenate(([0], np.cumsum(np.bincount(hops)))).tolist()

        arc = (self._next_port + np.arange(0, self._n_node * n_port, n_port)[:, None]).take(pair)
        kept = np.where(before.vertex == network.vertex, network.weight, np.inf)
        weight = kept.take(arc)
        onward = (network.vertex * n_destination).take(arc) + pair % n_destination
        for first, end in pairwise(level_start):
            flat[pair[first:end]] = flat.take(onward[first:end]) + weight[first:end]
        return np.unique(pair[np.isinf(flat.take(pair))] % n_destination)

    def _shorten(self, network: _Network, changed: IntArray) -> IntArray:
        """Follow shorter distances from neighbour to neighbour, until no arc leads nearer.

        Pairs of node and destination are numbered node × n_destination + column. `changed` are those of satellites
        whose distance has become less; the answer is all those of which a port may lead nearer than before.
        """
        n_destination = len(self.destinations)
        flat = self._distance.reshape(-1)
        is_stale = np.zeros(self._n_node * n_destination, np.bool_)
        is_stale[changed] = True
        claim = np.empty(len(is_stale), np.int64)
        while len(changed):
            node = changed // n_destination
            peer = network.peer[node]
            pair = peer * n_destination + (changed - node * n_destination)[:, None]
            lit = peer != NONE
            is_stale[pair[lit]] = True
            relays = lit & ~self._is_ground[peer]
            through, pair = (network.weight[node] + flat[changed][:, None])[relays], pair[relays]
            is_nearer = through < flat[pair]
            changed = pair[is_nearer]
            np.minimum.at(flat, changed, through[is_nearer])
            number = np.arange(len(changed))
            claim[changed] = number
            changed = changed[claim[changed] == number]  # each once
        return np.flatnonzero(is_stale)


def _same(one: Ports, other: Ports) -> bool:
    return np.array_equal(one.peer, other.peer) and np.array_equal(one.delay_us, other.delay_us)


def path(next_port: IntArray, panel: Ports, destinations: IntArray, source: int, column: int) -> list[int]:
    """The nodes from source to a column's destination, both included; empty where there is no way.

    `next_port` is from next_ports, of the same destinations.
    """
    nodes, destination = [source], int(destinations[column])
    while nodes[-1] != destination:
        port = int(next_port[nodes[-1], column])
        peer = NONE if port == NONE else int(panel.peer[nodes[-1], port])
        if peer == NONE or len(nodes) > len(next_port):
            return []
        nodes.append(peer)
    return nodes


@dataclass(frozen=True)
class PathCosts:
    """Paths of pairs of nodes. Shapes: both (n_pair,)."""

    delay_us: IntArray  # sum of the one-way delays, or NONE
    hops: IntArray  # links on the way, or NONE


def path_costs(
    next_port: IntArray, panel: Ports, destinations: IntArray, source: IntArray, column: IntArray
) -> PathCosts:
    """What the paths of many pairs cost, all walked hop by hop together.

    Shapes: source (n_pair,), nodes; column (n_pair,), of next_port, which is from next_ports, of the same destinations.
    """
    destination = destinations[column]
    at = source.astype(np.int64)
    delay_us = np.zeros(len(source), np.int64)
    hops = np.zeros(len(source), np.int64)
    on_way = np.flatnonzero(at != destination)
    for _ in range(len(next_port)):
        if not len(on_way):
            break
        port = next_port[at[on_way], column[on_way]]
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


@dataclass(frozen=True)
class RouteChanges:
    """Routes that come, move or go. Shapes: all (n,)."""

    node: IntArray  # where the route stands
    destination: IntArray  # the node that it leads to
    port: IntArray  # the first node's own port index, or WITHDRAWN

    def __len__(self) -> int:
        return len(self.node)


def route_changes(
    before: IntArray, next_port: IntArray, panel: Ports, destinations: IntArray
) -> tuple[RouteChanges, ...]:
    """What changes from one step's routes to the next one's, in waves to be made one after another.

    Shapes: before and next_port (n_node, n_destination). For each destination a node changes after all changed nodes
    that stand on its new way, so from the destination outwards, and routes go last. Then, as long as the links of both
    steps are up, every packet under way arrives: a node whose new way stands as a whole sends along it, any other one
    sends along its old way, until that ends or meets a node of the first kind.
    """
    node, column = np.nonzero(next_port != before)
    port = next_port[node, column]
    wave = _changed_ahead(next_port, panel, destinations, next_port != before, node, column)
    wave[port == NONE] = len(next_port)
    order = np.lexsort((column, node, wave))
    bounds = np.flatnonzero(np.diff(wave[order])) + 1
    return tuple(
        RouteChanges(node[rows], destinations[column[rows]], port[rows])
        for rows in np.split(order, bounds)
        if len(rows)
    )


def _changed_ahead(
    next_port: IntArray, panel: Ports, destinations: IntArray, is_changed: BoolArray, node: IntArray, column: IntArray
) -> IntArray:
    """How many changed nodes stand on the ways of some pairs, beyond the first node. Shapes: pairs (n_pair,)."""
    at = node.copy()
    ahead = np.zeros(len(node), np.int64)
    on_way = np.arange(len(node))
    for _ in range(len(next_port)):
        port = next_port[at[on_way], column[on_way]]
        peer = np.where(port == NONE, NONE, panel.peer[at[on_way], port])
        goes_on = (peer != NONE) & (peer != destinations[column[on_way]])
        on_way = on_way[goes_on]
        if not len(on_way):
            break
        at[on_way] = peer[goes_on]
        ahead[on_way] += is_changed[at[on_way], column[on_way]]
    return ahead
