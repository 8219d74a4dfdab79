"""The wire: all that the controller and the agents share."""
