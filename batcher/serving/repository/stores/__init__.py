"""Models in a bucket or on a web server: what is there, and copies of it on the local disk."""
