"""skyrack's node agent: the program in every satellite, gateway and terminal.

`server` opens the two planes; `services` turn calls into verbs; `store` keeps objects; `engine` leads every job through
its states (`states` decides, `ledger` remembers), `executor` runs it here, `courier` gets it done at another node.
"""

__version__ = "0.1.0"
