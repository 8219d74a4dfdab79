"""The patch panel and what shapes, routes and measures on it."""
