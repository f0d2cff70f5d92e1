"""Models behind one protocol, a file for each format.

Formats are imported when a model of theirs is loaded.
"""
