"""What stands between an empty program and its end beneath the executor, and what one costs bare, by turns. Root."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench._fabric import figure
from controller.owner import is_machine_root
from tests.executing import executed

AT_MOST_MS = 8.0


def main() -> None:
    """Measure."""
    assert is_machine_root(), "as root, for users of their own"
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        took = executed("overhead", folder, apart=True)
    figure("an empty program, bare", took["bare_ms"], "ms")
    figure("beneath the executor, as a user of its own, beyond that", took["ours_ms"] - took["bare_ms"], "ms",
           at_most=AT_MOST_MS)  # fmt: skip


if __name__ == "__main__":
    main()
