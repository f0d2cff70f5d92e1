"""Models in actors of Ray, on whatever node of a cluster has what they take."""
