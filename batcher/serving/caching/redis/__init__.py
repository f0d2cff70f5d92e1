"""Answers that several servers share through a Redis, which may be slow, away, or wrong."""
