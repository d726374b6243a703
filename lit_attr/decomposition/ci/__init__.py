"""Causal importance: how much each component matters at each position, as trained functions of the target's inputs."""
