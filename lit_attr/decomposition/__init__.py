"""What is attributed: target models, their components and causal importances, and how a run is found and loaded."""
