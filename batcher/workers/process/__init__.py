"""The worker that runs its model in a child process, and all that parent and child say."""
