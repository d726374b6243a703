"""Scripts that make what is shipped; not part of the package."""
