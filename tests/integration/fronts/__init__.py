"""The front-ends of `examples/`, clicked through in a browser without a network."""
