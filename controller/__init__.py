"""skyrack's controller: plans the sky of a run, shapes the network to it, and keeps the run's record.

`cli` asks; `emulation` runs the loop; `scenario`, `orbit`, `links` and `timeline` plan ahead, without side effects;
`fabric` and `runtime` change the machine; `record` writes down what was commanded, read back and measured.
"""
