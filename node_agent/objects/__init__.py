"""Objects: how they come, are kept, encrypted, looked through, and go."""
