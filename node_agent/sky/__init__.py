"""What the node knows of the sky, and what it tells the programs in it."""
