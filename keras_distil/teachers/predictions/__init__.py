"""A teacher that is known by its predictions alone."""
