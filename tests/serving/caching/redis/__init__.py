"""Answers that several servers share."""
