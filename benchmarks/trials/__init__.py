"""Parts of `benchmarks/rollouts.py`: a repository, clients that check answers, and changes."""
