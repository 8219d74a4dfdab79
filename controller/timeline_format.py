"""What is in a timeline's file: every member with its type, shape, unit and meaning, as the file itself says it too."""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "skyrack timeline"
FORMAT_VERSION = 2
DOCUMENT = "timeline.json"
README = "README.txt"


@dataclass(frozen=True)
class Member:
    """One array of the file. Of the shape's names, those that are alike are the same number all over the file."""

    name: str  # without ".npy"; below "block/" once a block
    dtype: str
    shape: tuple[str, ...]
    unit: str  # "1": a plain number
    meaning: str


_LINK, _CONTACT, _ECLIPSE = ("n_link",), ("n_contact",), ("n_eclipse",)
_ROW = ("n_row",)

HEAD_MEMBERS = (
    Member("t_s", "<f8", ("n_step",), "s", "instants since the epoch; state i holds from t_s[i] until t_s[i + 1]"),
    Member("links/a", "<i8", _LINK, "1", "one end of each pair of ports: index of nodes; its name sorts before b's"),
    Member("links/b", "<i8", _LINK, "1", "the other end: index of nodes"),
    Member("links/kind", "<i8", _LINK, "1", "0: between satellites (isl), 1: between ground and satellite (gsl)"),
    Member("links/port_a", "<i8", _LINK, "1", "which of a's ports: index of that node's ports"),
    Member("links/port_b", "<i8", _LINK, "1", "which of b's ports"),
    Member("links/loss_ratio", "<f8", _LINK, "1", "share of packets that are lost"),
    Member("links/mtu_bytes", "<i8", _LINK, "byte", "the largest packet, without its Ethernet header"),
    Member(
        "contacts/a", "<i8", _CONTACT, "1", "one end of each scheduled interval, whatever its ports: index of nodes"
    ),
    Member("contacts/b", "<i8", _CONTACT, "1", "the other end"),
    Member("contacts/kind", "<i8", _CONTACT, "1", "as links/kind"),
    Member("contacts/start_s", "<f8", _CONTACT, "s", "since the epoch, to 10 ms, cut at the run's start"),
    Member("contacts/end_s", "<f8", _CONTACT, "s", "since the epoch, to 10 ms, cut at the run's end"),
    Member("contacts/max_elevation_deg", "<f8", _CONTACT, "degrees", "highest, at the ground node; NaN for an isl"),
    Member("contacts/min_range_m", "<f8", _CONTACT, "m", "shortest distance"),
    Member("contacts/max_range_rate_m_s", "<f8", _CONTACT, "m/s", "largest speed of approach or departure"),
    Member("contacts/max_doppler_hz", "<f8", _CONTACT, "Hz", "of the carrier, either way; NaN where none is given"),
    Member("contacts/volume_bytes", "<i8", _CONTACT, "byte", "what the link can carry one way, under a clear sky"),
    Member("eclipses/satellite", "<i8", _ECLIPSE, "1", "who sees less than the whole Sun: index of nodes"),
    Member("eclipses/start_s", "<f8", _ECLIPSE, "s", "since the epoch, cut at the run's start"),
    Member("eclipses/end_s", "<f8", _ECLIPSE, "s", "since the epoch, cut at the run's end"),
    Member("eclipses/umbra_start_s", "<f8", _ECLIPSE, "s", "the Sun is hidden whole from here; NaN: it never is"),
    Member("eclipses/umbra_end_s", "<f8", _ECLIPSE, "s", "until here"),
    Member("eclipses/beta_deg", "<f8", _ECLIPSE, "degrees", "the Sun's angle above the orbital plane in the middle"),
)

BLOCK_MEMBERS = (
    Member("block/r_ecef_m", "<f8", ("n_t", "3", "n_node"), "m", "positions, Earth-fixed; NaN after a node's end"),
    Member("block/illumination_ratio", "<f4", ("n_t", "n_node"), "1", "share of the Sun that is seen; NaN as above"),
    Member("block/step_start", "<i8", ("n_t + 1",), "1", "the block's step i has rows step_start[i] : step_start[i+1]"),
    Member("block/link", "<i4", _ROW, "1", "a usable link: index of the arrays links/…; rising within a step"),
    Member("block/range_m", "<f8", _ROW, "m", "its length"),
    Member("block/range_rate_m_s", "<f4", _ROW, "m/s", "positive: its ends recede from each other"),
    Member("block/delay_us", "<i4", _ROW, "us", "one way, length ÷ speed of light, to the nearest microsecond"),
    Member("block/rate_bps", "<i8", _ROW, "bit/s", "what it carries, each way"),
    Member("block/elevation_deg", "<f4", _ROW, "degrees", "of the satellite at the ground node; NaN for an isl"),
)

README_TEXT = f"""\
A skyrack timeline: where the satellites and ground nodes of a run are, and which links join them, step by step.

This is a zip file. {DOCUMENT} (JSON) holds the epoch, the nodes, the scenario's text (the files of element sets
that it names are in element_files/), and under "members" the type,
shape, unit and meaning of every array. The arrays are .npy files (NEP 1, numpy's documented format), little-endian,
so numpy.load reads the whole file as it would an .npz. Any zip program takes it apart.

    import json, numpy
    file = numpy.load("timeline.npz")
    about = json.loads(file["{DOCUMENT}"])
    names = [node["name"] for node in about["nodes"]]
    step = 1000
    block, i = divmod(step, about["block_steps"])
    positions_m = file[f"block-{{block:05d}}/r_ecef_m"][i]         # (3, n_node)
    first, end = file[f"block-{{block:05d}}/step_start"][i : i + 2]
    link = file[f"block-{{block:05d}}/link"][first:end]            # links that are usable in this step
    a, b = file["links/a"][link], file["links/b"][link]           # their ends: names[a[0]], names[b[0]]
    delay_us = file[f"block-{{block:05d}}/delay_us"][first:end]

Block k holds the steps from k × block_steps; all blocks but the last have block_steps of them. Times are seconds since
epoch_utc, without leap seconds. "content_hash" names what the timeline commands and describes; it is the same on every
machine.
"""


def member_documents() -> dict[str, dict[str, object]]:
    """All members as {DOCUMENT} tells them."""
    return {
        member.name.replace("block/", "block-NNNNN/"): {
            "dtype": member.dtype,
            "shape": list(member.shape),
            "unit": member.unit,
            "meaning": member.meaning,
        }
        for member in (*HEAD_MEMBERS, *BLOCK_MEMBERS)
    }


def block_name(index: int) -> str:
    """The folder of a block's arrays."""
    return f"block-{index:05d}"
