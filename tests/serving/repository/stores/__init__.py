"""Stores, and what copies versions out of them."""
