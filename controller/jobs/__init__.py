"""Jobs as the controller sees them: the desk that hands them to gateways and follows them."""
