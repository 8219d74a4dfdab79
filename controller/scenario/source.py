"""A scenario as text, with the files of element sets that it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.errors import InputError


@dataclass(frozen=True)
class Source:
    """A scenario as text: where it is from, and where its relative paths start."""

    label: str  # named in every error
    text: str
    folder: Path
    element_files: Mapping[str, str] = field(default_factory=dict)  # texts that came along, by path as the scenario's

    def element_text(self, path: str) -> str:
        """A file of element sets. Raises OSError, UnicodeDecodeError or ValueError where it cannot be read."""
        if path in self.element_files:
            return self.element_files[path]
        return (self.folder / path).read_text(encoding="utf-8-sig")

    def self_contained(self) -> Source:
        """The same, with the text of every file that it names. Raises InputError where one cannot be read."""
        try:
            constellations = tomllib.loads(self.text).get("constellation", [])
            paths = [c[key] for c in constellations for key in ("tle", "omm") if key in c]
            return replace(self, element_files={path: self.element_text(path) for path in paths})
        except (OSError, ValueError) as error:
            raise InputError(f"{self.label}: a file of element sets cannot be read any more: {error}") from error
