"""Under which terms a node keeps an object: where it may lie, who holds it, if it is pinned, if it is a fragment."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from node_agent.errors import InvalidArgument, PermissionDenied
from node_agent.objects.parts import Part
from protos.skyrack.v1 import objects_pb2

_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_MAX_HOLDERS: Final = 256
_MAX_NODE_NAME: Final = 255


@dataclass(frozen=True)
class Terms:
    """What `ObjectTerms` of the wire says, checked; each list sorted and without doubles."""

    jurisdictions: tuple[str, ...] = ()
    transit: bool = False
    holders: tuple[str, ...] = ()
    pinned: bool = False
    part: Part | None = None  # None: it is no fragment

    @classmethod
    def of(cls, said: objects_pb2.ObjectTerms) -> Self:
        """The terms that the wire says. Raises InvalidArgument."""
        for code in said.jurisdictions:
            if not _COUNTRY.fullmatch(code):
                raise InvalidArgument(f"jurisdiction {code[:20]!r} is no code of ISO 3166-1 alpha-2, such as CN")
        if len(said.holders) > _MAX_HOLDERS:
            raise InvalidArgument(f"{len(said.holders)} holders; at most {_MAX_HOLDERS} are possible")
        for node in said.holders:
            if not 0 < len(node) <= _MAX_NODE_NAME:
                raise InvalidArgument(f"holder {node[:20]!r} is no node's name: 1 to {_MAX_NODE_NAME} characters")
        jurisdictions = tuple(sorted(set(said.jurisdictions)))
        transit = said.transit and bool(jurisdictions)  # it says nothing where anything may lie anywhere
        part = Part.of(said.part) if said.HasField("part") else None
        return cls(jurisdictions, transit, tuple(sorted(set(said.holders))), said.pinned, part)

    def told(self) -> objects_pb2.ObjectTerms:
        """For the wire."""
        return objects_pb2.ObjectTerms(
            jurisdictions=self.jurisdictions,
            transit=self.transit,
            holders=self.holders,
            pinned=self.pinned,
            part=self.part.told() if self.part else None,
        )

    @property
    def residency(self) -> Self:
        """What of the terms is for good, and goes with every copy."""
        return replace(self, holders=(), pinned=False, part=None)

    @property
    def where(self) -> str:
        """The residency, for people."""
        if not self.jurisdictions:
            return "anywhere"
        return ", ".join(self.jurisdictions) + (" with transit" if self.transit else "")

    def joined(self, more: Self) -> Self:
        """The terms when it is asked for again, under those: all holders, pinned if either is, a fragment if it was."""
        holders = tuple(sorted({*self.holders, *more.holders}))
        return replace(self, holders=holders, pinned=self.pinned or more.pinned, part=more.part or self.part)

    def check_lies_in(self, jurisdiction: str, who: str) -> None:
        """Raises PermissionDenied unless it may lie in that jurisdiction; "" is outside of every list."""
        if self.jurisdictions and jurisdiction not in self.jurisdictions:
            where = f"lies in {jurisdiction}" if jurisdiction else "has no jurisdiction"
            raise PermissionDenied(f"{who} {where}, and the object may lie in {', '.join(self.jurisdictions)} only")
