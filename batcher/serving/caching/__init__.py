"""Answers that are kept: as bytes, in a bounded memory, and while they are on their way."""
