"""What happens to a request between the front and the queue, one stage a file."""
