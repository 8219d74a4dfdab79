"""What joins nodes: inter-satellite and ground links, contacts, routes. Pure functions over arrays."""
