"""What makes pages of docs/ from the code, and a site from docs/."""
