"""Other servers, with the same models, for comparison."""
