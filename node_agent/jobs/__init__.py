"""Jobs: what is on disk of them, which state follows which, and attempts at them here."""
