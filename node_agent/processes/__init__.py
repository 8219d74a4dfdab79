"""The processes of a node: the first of them, those that it starts, and what sets them apart from the machine."""
