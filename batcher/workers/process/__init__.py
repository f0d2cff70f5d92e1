"""The worker that runs its model in a child process, and everything that child and parent say to each other."""
