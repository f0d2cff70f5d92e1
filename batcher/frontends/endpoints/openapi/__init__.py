"""What /openapi.json says of every route."""
