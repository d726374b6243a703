"""What is kept: sums of attributions, their file, and questions to it. Knows no model and no Lightning."""
