"""What the workloads run: each file is handed to a node alone, which has numpy and the standard library.

Run as jobs, they read the files named in SKYRACK_INPUTS, leave what they find in SKYRACK_OUTPUT_DIR and print one line
of JSON. Imported, they tell what must come out: what is drawn from a seed is drawn from the raw 64-bit words of PCG64,
which NumPy keeps the same for ever (NEP 19), and computed on integers where the answer is more than a place.
"""
