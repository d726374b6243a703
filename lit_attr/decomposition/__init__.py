"""A model and its components: finding and loading a run, target models, causal importances. Knows no attribution."""
