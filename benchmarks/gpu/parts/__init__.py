"""What `make gpu` runs, each in a process of its own: a part that hangs or crashes ends alone."""
