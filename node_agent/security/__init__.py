"""Who a node is, who may call what, what was denied, and TLS."""
