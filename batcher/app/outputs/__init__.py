"""Standard output and error that never hold up the server, whatever becomes of their readers."""
