"""Whether the parts of a timeline fit each other: what a file says may be anything. Pure."""

from __future__ import annotations

import numpy as np

from controller.timeline import MAX_MTU_BYTES, MIN_MTU_BYTES, Block, Head, Timeline


def check_head(timeline: Timeline) -> None:
    """Indices point to something. Raises ValueError."""
    n_node, blocks = len(timeline.nodes), timeline.blocks
    if blocks.block_steps < 1 or len(blocks) != -(-timeline.n_step // blocks.block_steps):
        raise ValueError(f"{len(blocks)} blocks of {blocks.block_steps} steps do not make {timeline.n_step} steps")
    tables = (timeline.links.a, timeline.links.b, timeline.contacts.a, timeline.contacts.b, timeline.eclipses.satellite)
    ends = np.array([end.node for end in timeline.node_ends], np.int64)
    for index in (*tables, ends):
        if index.size and not 0 <= index.min() <= index.max() < n_node:
            raise ValueError(f"a table names node {index.max()} of {n_node}")
    ports = np.array([len(node.ports) for node in timeline.nodes])
    for node, port in ((timeline.links.a, timeline.links.port_a), (timeline.links.b, timeline.links.port_b)):
        if np.any((port < 0) | (port >= ports[node])):
            raise ValueError("a link names a port that its node has not")
    for mtu_bytes in timeline.links.mtu_bytes.tolist():
        if not MIN_MTU_BYTES <= mtu_bytes <= MAX_MTU_BYTES:
            raise ValueError(f"a link has an MTU of {mtu_bytes} bytes, which is not {MIN_MTU_BYTES} to {MAX_MTU_BYTES}")


def check_block(block: Block, head: Head, block_steps: int) -> None:
    """A block fits the head, and its parts each other. Raises ValueError."""
    n_t = min(block_steps, head.n_step - block.first_step)
    start = block.step_start
    if block.r_ecef_m.shape != (n_t, 3, len(head.nodes)) or len(start) != n_t + 1:
        raise ValueError(f"the block from step {block.first_step} must hold {n_t} steps of {len(head.nodes)} nodes")
    if start[0] != 0 or start[-1] != len(block.link) or np.any(np.diff(start) < 0):
        raise ValueError(f"step_start of the block from step {block.first_step} does not rise from 0 to its rows")
    if len(block.link) and not 0 <= block.link.min() <= block.link.max() < len(head.links.a):
        raise ValueError(f"the block from step {block.first_step} names link {block.link.max()}")
