"""Files that clients name in place of inputs: fetched from stores and web servers."""
