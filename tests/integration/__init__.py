"""Real balancers in front of real servers: `make integration`."""
