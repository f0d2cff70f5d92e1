"""Models behind one protocol, a file for each format; formats are imported when a model of theirs is loaded."""
