"""The code blocks of the pages that take too long, or need too much, for `make test`."""
