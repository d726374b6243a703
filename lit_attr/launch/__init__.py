"""Launching on SLURM: git snapshot, job scripts, submission. Knows no torch."""
