"""How much of the store's quota is taken, and by what."""

from __future__ import annotations


class Room:
    """Bytes held under names; together they are what is taken."""

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.taken_bytes = 0
        self._held_bytes: dict[str, int] = {}

    def held_bytes(self, name: str) -> int:
        """What is held under a name."""
        return self._held_bytes.get(name, 0)

    def hold(self, name: str, size_bytes: int) -> None:
        """Hold so many bytes under a name from now on, be it more or less than before; 0: none."""
        self.taken_bytes += size_bytes - self.held_bytes(name)
        if size_bytes:
            self._held_bytes[name] = size_bytes
        else:
            self._held_bytes.pop(name, None)

    def lacking_bytes(self, name: str, size_bytes: int) -> int:
        """How many bytes are too many, if so many were held under a name; 0 or less: there is room."""
        return self.taken_bytes - self.held_bytes(name) + size_bytes - self.quota_bytes
