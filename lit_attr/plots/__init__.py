"""Pictures of a result, for a paper: each function gives a figure of matplotlib, which `save` writes."""
