"""Stores as others write them: two of S3, Google's, Azure's, and nginx."""
