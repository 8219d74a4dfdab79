"""What a run serves to the command line, and the client of it."""
