"""Attributions by Jacobian-vector products, where an undecomposed matrix lies on a path."""
