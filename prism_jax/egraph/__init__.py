"""E-graphs."""
