"""One campaign by hand: `python -m tests.fuzz.run --seed N --messages 100000`.

Launches two agents as processes, makes so many calls to every method of every service from everybody who may, and
looks at what becomes of the agents. Exit status: 0 when nothing is wrong, 1 with all that is. A finding names the seed
and the number of its case; `--show NUMBER` says what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.agent.fleet import Fleet
from tests.agent.methods import METHODS
from tests.fuzz.campaign import RAW_EVERY, Campaign, Report
from tests.fuzz.cases import case
from tests.fuzz.raw import Door, raw_case

WARM_UP = 2_000


async def fuzz(seed: int, messages: int) -> Report:
    """A campaign over a fleet of its own."""
    with tempfile.TemporaryDirectory(prefix="skyrack-fuzz-") as folder:
        async with Fleet(Path(folder)) as fleet:
            return await Campaign(fleet, seed, lambda text: print(text, flush=True)).run(messages, WARM_UP)


def told(report: Report) -> str:
    """A report for people."""
    lines = [
        f"{name}: {', '.join(f'{code} {count}' for code, count in report.of_method(name).items())}"
        for name in [*(method.name for method in METHODS), *(door.value for door in Door)]
    ]
    lines.append(
        f"seed {report.seed}: {report.cases} cases, {report.messages} messages, {report.took_s:.1f} s, "
        f"{report.cases / max(report.took_s, 1e-9):.0f} cases/s; the slowest call took {report.slowest_s:.1f} s"
    )
    lines += [f"FINDING {finding}" for finding in report.findings]
    return "\n".join(lines)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--show", type=int, metavar="NUMBER", help="what the case of this number sends; calls nobody")
    known = parser.parse_args()
    if known.show is not None:
        if known.show % RAW_EVERY:
            shown = case(known.seed, known.show)
            print(shown, *shown.frames, sep="\n")
        else:
            raw = raw_case(known.seed, known.show)
            print(raw, raw.data, sep="\n")
        return 0
    report = asyncio.run(fuzz(known.seed, known.messages))
    print(told(report))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
