"""What an executor is put through, with users of their own and without; see `tests.executing`."""
