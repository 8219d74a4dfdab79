"""What the jobs of the chaos test do. Alone in a node, with the standard library; imported, it knows its answers.

    work.py ID RUN_S OUTPUT_BYTES STEPS FAILS

Each start makes a connection to the witness, outside of all nodes, which holds as long as the process lives: the
kernel says when it is over. The witness answers which start of the job this is; the first FAILS of them end badly. It
hashes its inputs, lives for RUN_S in STEPS steps with a checkpoint after each, leaves its outputs, and says so last.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
import time
from pathlib import Path

WITNESS = "/etc/opt/witness"
FAILED_STATUS = 3


def outputs(job_id: str, output_bytes: int, inputs: list[str]) -> dict[str, bytes]:
    """What a job leaves, by its inputs' digests."""
    told = "".join(f"{each}\n" for each in (job_id, *inputs)).encode()
    left = {"seen": told}
    if output_bytes:
        left["data/out"] = random.Random(f"{job_id} {len(inputs)}").randbytes(output_bytes)
    return left


def main() -> None:
    """The program."""
    job_id, run_s, output_bytes, steps, fails = sys.argv[1:6]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as witness:
        witness.connect(WITNESS)
        checkpoint = Path(os.environ["SKYRACK_CHECKPOINT"])
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        witness.send(json.dumps({"job": job_id, "node": os.environ["SKYRACK_NODE"], "from_step": done}).encode())
        start = int(witness.recv(64))
        print(f"start {start} of {job_id}", flush=True)
        names = [path for path in os.environ["SKYRACK_INPUTS"].split(os.pathsep) if path]
        inputs = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in names]
        for step in range(done, max(int(steps), 1)):
            time.sleep(float(run_s) / max(int(steps), 1))
            if int(steps):
                aside = checkpoint.with_name("next")
                aside.write_text(str(step + 1))
                aside.replace(checkpoint)
        for name, content in outputs(job_id, int(output_bytes), inputs).items():
            path = Path(os.environ["SKYRACK_OUTPUT_DIR"]) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        fails_now = start <= int(fails)
        witness.send(json.dumps({"ends": FAILED_STATUS if fails_now else 0}).encode())
        if fails_now:
            sys.exit(FAILED_STATUS)


if __name__ == "__main__":
    main()
