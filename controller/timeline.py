"""The sky of a run as arrays: computed whole before the start, hashed, and only applied afterwards.

A timeline has a head (nodes, links, contacts, eclipses) that is as small as what happens in it, and blocks, stretches
of steps that hold where everything is. Blocks come from memory or from a file, so a timeline may be longer than memory.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


MTU_BYTES, MIN_MTU_BYTES, MAX_MTU_BYTES = 1_500, 1_280, 9_000
"""The largest packet of a link where nothing is said; the least, which IPv6 needs (RFC 8200); and jumbo frames."""


class Role(enum.StrEnum):
    """What a node is."""

    SATELLITE = "satellite"
    GATEWAY = "gateway"
    TERMINAL = "terminal"


class LinkKind(enum.IntEnum):
    """What a link joins."""

    ISL = 0  # satellite to satellite
    GSL = 1  # ground node to satellite


@dataclass(frozen=True)
class Node:
    """A satellite, gateway or terminal, and its fixed pool of ports."""

    name: str
    role: Role
    ports: tuple[str, ...]  # isl0 … isl3, gsl0 …


@dataclass(frozen=True)
class LinkTable:
    """Every pair of ports that is patched at some time of the run. Shapes: all (n_link,).

    `a` and `b` index Timeline.nodes, with names[a] < names[b] (as strings); `port_a` and `port_b` index that node's
    ports. Rows are in the order of their names, then of their ports.
    """

    a: IntArray
    b: IntArray
    kind: IntArray  # LinkKind
    port_a: IntArray
    port_b: IntArray
    loss_ratio: FloatArray
    mtu_bytes: IntArray  # the largest packet


@dataclass(frozen=True)
class ContactTable:
    """The contact plan: each interval during which two nodes are linked, whatever their ports. Shapes: (n_contact,).

    Times are seconds since the epoch, to 10 ms, cut at the start and the end of the run. In order of start, then of the
    nodes' names. Faults and weather are no part of it: nobody plans them.
    """

    a: IntArray  # as in LinkTable
    b: IntArray
    kind: IntArray
    start_s: FloatArray
    end_s: FloatArray
    max_elevation_deg: FloatArray  # at the ground node; NaN for an ISL
    min_range_m: FloatArray
    max_range_rate_m_s: FloatArray  # the largest speed of approach or departure
    max_doppler_hz: FloatArray  # of the link's carrier, either way; NaN where no carrier is given
    volume_bytes: IntArray  # what the link can carry in all that time, one way, under a clear sky


@dataclass(frozen=True)
class EclipseTable:
    """Times during which satellites see less than the whole Sun. Shapes: (n_eclipse,). By satellite, then start.

    Seconds since the epoch, cut at the start and the end of the run.
    """

    satellite: IntArray  # indexes Timeline.nodes
    start_s: FloatArray
    end_s: FloatArray
    umbra_start_s: FloatArray  # NaN where the Sun is never hidden whole
    umbra_end_s: FloatArray
    beta_deg: FloatArray  # the Sun's angle above the orbital plane in the middle of the eclipse


@dataclass(frozen=True)
class NodeEnd:
    """A node that leaves the sky during the run: its orbit has decayed."""

    node: int  # indexes Timeline.nodes
    at_s: float  # since the epoch; from then on it has no place, no light and no links
    reason: str


@dataclass(frozen=True)
class Block:
    """A stretch of steps. Shapes: n_t steps of n_node nodes with n_row rows of usable links.

    r_ecef_m (n_t, 3, n_node) and illumination_ratio (n_t, n_node) are NaN after a node's end. Links are kept step by
    step, one after another: the block's step i owns rows step_start[i] to step_start[i + 1] of the arrays below it, in
    order of link index.
    """

    first_step: int
    r_ecef_m: FloatArray
    illumination_ratio: Float32Array
    step_start: IntArray  # (n_t + 1,)
    link: Int32Array  # indexes LinkTable
    range_m: FloatArray
    range_rate_m_s: Float32Array  # positive: the ends recede from each other
    delay_us: Int32Array
    rate_bps: IntArray
    elevation_deg: Float32Array  # at the ground node; NaN for an ISL

    @property
    def n_step(self) -> int:
        """How many steps it holds."""
        return len(self.step_start) - 1

    @property
    def n_byte(self) -> int:
        """What its arrays take in memory."""
        return sum(value.nbytes for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray))


class Blocks(Protocol):
    """Where a timeline's blocks are kept. All but the last have `block_steps` steps."""

    block_steps: int

    def __len__(self) -> int:
        """How many blocks there are."""

    def __getitem__(self, index: int) -> Block:
        """One block, from 0. A block that was just asked for is cheap to ask for again."""


class BlockStore(Blocks, Protocol):
    """Somewhere to keep blocks. `block_steps` is set before the first."""

    def append(self, block: Block) -> None:
        """Keep the next block."""


class MemoryBlocks:
    """Blocks in memory."""

    def __init__(self, block_steps: int = 1) -> None:
        self.block_steps = block_steps
        self._blocks: list[Block] = []

    def append(self, block: Block) -> None:
        """Keep the next block."""
        self._blocks.append(block)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> Block:
        return self._blocks[index]


@dataclass(frozen=True)
class Sky:
    """One step: where everything is, and the links that are usable. Shapes: links (n_up,), in order of link index."""

    r_ecef_m: FloatArray  # (3, n_node)
    illumination_ratio: Float32Array  # (n_node,)
    link: Int32Array  # indexes LinkTable
    range_m: FloatArray
    range_rate_m_s: Float32Array
    delay_us: Int32Array
    rate_bps: IntArray
    loss_ratio: FloatArray
    elevation_deg: Float32Array


@dataclass(frozen=True)
class Head:
    """What there is in the sky of a run and what happens there: a timeline without its blocks.

    Shapes: t_s (n_t,), seconds since the epoch; state i holds from t_s[i] until t_s[i + 1].
    """

    epoch_utc: datetime
    step_s: float
    t_s: FloatArray
    nodes: tuple[Node, ...]  # satellites first, then ground nodes
    links: LinkTable
    contacts: ContactTable
    eclipses: EclipseTable
    node_ends: tuple[NodeEnd, ...]
    warnings: tuple[str, ...]  # what the user should know of this sky; no part of the hash

    @property
    def n_step(self) -> int:
        """How many steps there are."""
        return len(self.t_s)

    @property
    def n_satellite(self) -> int:
        """How many of the nodes, from the first, are satellites."""
        return sum(node.role is Role.SATELLITE for node in self.nodes)


@dataclass(frozen=True)
class Timeline(Head):
    """The whole run. content_hash names all of it, and is the same on every machine."""

    blocks: Blocks
    content_hash: str  # "sha256:…"; empty where blocks are computed when they are asked for

    def sky(self, step: int) -> Sky:
        """One step. Raises IndexError for one that there is not."""
        if not 0 <= step < self.n_step:
            raise IndexError(f"step {step} of {self.n_step}")
        block = self.blocks[step // self.blocks.block_steps]
        i = step - block.first_step
        rows = slice(int(block.step_start[i]), int(block.step_start[i + 1]))
        return Sky(
            block.r_ecef_m[i], block.illumination_ratio[i], block.link[rows], block.range_m[rows],
            block.range_rate_m_s[rows], block.delay_us[rows], block.rate_bps[rows],
            self.links.loss_ratio[block.link[rows]], block.elevation_deg[rows],
        )  # fmt: skip

    def each_block(self) -> Iterator[Block]:
        """Every block, in order."""
        return (self.blocks[index] for index in range(len(self.blocks)))

    def skies(self) -> Iterator[Sky]:
        """Every step, in order."""
        return (self.sky(step) for step in range(self.n_step))


def utc_text(instant: datetime) -> str:
    """An aware instant as ISO 8601 in UTC, to the millisecond: "2026-01-01T00:00:00.000Z"."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class ContentHash:
    """Names everything that a timeline commands and describes: "sha256:…", fed block by block, however they are cut.

    Canonical bytes: little-endian integers, one stream an array. Commanded values (links, ports, delays, rates) enter
    exactly. Sines differ in their last bit from one machine to the next, so described values enter rounded, so coarsely
    that such a difference (some 1e-8 m) all but never crosses a rounding edge: positions to 100 m, sunlight to 1e-3,
    instants to 0.1 s. Ranges, elevations and volumes follow from these and do not enter.
    """

    def __init__(self, head: Head) -> None:
        nodes = [[node.name, node.role.value, list(node.ports)] for node in head.nodes]
        ends = [[end.node, round(end.at_s)] for end in head.node_ends]
        lead = [head.epoch_utc.astimezone(UTC).isoformat(timespec="microseconds"), nodes, ends]
        self._lead = hashlib.sha256(b"skyrack timeline 3\n" + json.dumps(lead, separators=(",", ":")).encode())
        links, contacts = head.links, head.contacts
        exact = (
            links.a, links.b, links.kind, links.port_a, links.port_b, links.mtu_bytes,
            contacts.a, contacts.b, contacts.kind,
        )  # fmt: skip
        rounded = (
            (np.array([head.step_s]), 1e-9),
            (head.t_s, 1e-9),
            (links.loss_ratio, 1e-12),
            (contacts.start_s, 0.1),
            (contacts.end_s, 0.1),
        )
        for array in (*exact, *(np.rint(array / unit) for array, unit in rounded)):
            # The length keeps neighbours apart; + 0 makes one zero of the two that floats have.
            self._lead.update(np.array([array.size], "<i8").tobytes())
            self._lead.update(np.ascontiguousarray(array + 0, "<i8").tobytes())
        self._streams = [hashlib.sha256() for _ in range(6)]

    def update(self, block: Block) -> None:
        """Take in the next block."""
        streams = (
            np.diff(block.step_start).astype("<i8"),
            block.link.astype("<i4"),
            block.delay_us.astype("<i4"),
            block.rate_bps.astype("<i8"),
            np.nan_to_num(np.rint(block.r_ecef_m / 100.0), nan=-(2.0**31)).astype("<i4"),
            np.nan_to_num(np.rint(block.illumination_ratio * 1e3), nan=-1.0).astype("<i2"),
        )
        for digest, array in zip(self._streams, streams, strict=True):
            digest.update(np.ascontiguousarray(array).data)

    def text(self) -> str:
        """The name of what was taken in so far."""
        whole = self._lead.copy()
        for digest in self._streams:
            whole.update(digest.digest())
        return f"sha256:{whole.hexdigest()}"


def kept(timeline: Timeline, store: BlockStore) -> Timeline:
    """The timeline with its blocks in a store, one after another, and named by its content."""
    store.block_steps = timeline.blocks.block_steps
    name = ContentHash(timeline)
    for block in timeline.each_block():
        name.update(block)
        store.append(block)
    return replace(timeline, blocks=store, content_hash=name.text())
