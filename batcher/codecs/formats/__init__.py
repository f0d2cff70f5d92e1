"""The formats of the native routes: one file for each media type, both ways."""
