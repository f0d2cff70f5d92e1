"""What fronts and the engine say to each other."""
