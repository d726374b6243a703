"""Pictures of a stored harvest, for a paper: each function gives a figure of matplotlib, which `save` writes."""
