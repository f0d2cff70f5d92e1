"""Outputs of the server, and the pump that they go through."""
