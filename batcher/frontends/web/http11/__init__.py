"""HTTP/1.1 as bytes: requests read, bounded and checked, answers rendered; no socket and no loop."""
