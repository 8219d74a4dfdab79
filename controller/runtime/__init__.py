"""How nodes live."""
