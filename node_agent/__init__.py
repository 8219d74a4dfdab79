"""skyrack's node agent: the program in every satellite, gateway and terminal.

`server` opens the two planes; `services` turn calls into verbs; `store` keeps objects; `engine` leads every job through
its states (`states` decides, `ledger` remembers), `executor` runs it here, `courier` gets it done at another node.
"""

from __future__ import annotations

import os

__version__ = "0.1.0"

# gRPC reads these once, when it is first imported: hence here, before anything of the agent is.
os.environ |= {
    # TLS 1.3 and no other. There is no such setting, but a list of the suites of TLS 1.2, beside which those of 1.3
    # always are: the one that is named here needs a secret of both ends, and there is none.
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-AES128-CBC-SHA",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # the agent is forked before gRPC starts, and forks nothing itself
}
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a peer that vanishes is news to the job, one refused to itself
