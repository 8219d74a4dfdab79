"""The filter that keeps jobs off the network, by itself."""

from __future__ import annotations

import struct

import pytest

from node_agent.processes.network_filter import no_network

ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 13  # EACCES
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003  # linux/audit.h


def decide(program: bytes, number: int, architecture: int, argument: int) -> int:
    """What the kernel would answer: classic BPF over struct seccomp_data, as far as the filter uses it."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, argument, *[0] * 5)
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        code, if_so, if_not, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += if_so if accumulator == value else if_not
            case 0x45:
                at += if_so if accumulator & value else if_not
            case 0x06:
                return int(value)
            case other:
                raise AssertionError(f"no such instruction: {other:#x}")


@pytest.mark.parametrize(
    ("machine", "architecture", "of_socket", "of_pair"),
    [("x86_64", X86_64, 41, 53), ("aarch64", AARCH64, 198, 199)],
)
def test_only_sockets_of_the_machine_itself_are_made(
    machine: str, architecture: int, of_socket: int, of_pair: int
) -> None:
    """AF_UNIX (1) may be, all else not, by whichever entry; io_uring neither; other calls are left alone."""
    program = no_network(machine)
    for number in (of_socket, of_pair):
        assert decide(program, number, architecture, 1) == ALLOW
        assert decide(program, number, architecture, 1 | 1 << 32) == ALLOW, "the kernel looks at the lower half alone"
        for family in (0, 2, 10, 16, 17, 40):
            assert decide(program, number, architecture, family) == REFUSE
    assert decide(program, 425, architecture, 1) == REFUSE
    assert decide(program, 0, I386, 1) == REFUSE
    assert decide(program, of_socket | 0x40000000, architecture, 1) == REFUSE
    assert decide(program, 3, architecture, 2) == ALLOW


def test_a_machine_that_it_is_not_written_for_is_told() -> None:
    """Rather than to run jobs on the network that are not to have it."""
    with pytest.raises(OSError, match="jobs without network are possible on x86_64, aarch64, not on riscv64"):
        no_network("riscv64")
