"""Request bodies to input arrays, and output arrays to response bodies, without any I/O."""
