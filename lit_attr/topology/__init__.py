"""Words, addresses and keys, the graph, path tables of models, and the sums. Knows no model."""
