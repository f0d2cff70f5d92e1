"""Models of real libraries, each served from a folder as a user of that library would write it."""
