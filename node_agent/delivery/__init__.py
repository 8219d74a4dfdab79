"""Jobs and objects on their way: to whom, when, over contacts that may break."""
