"""Training: data, targets, losses, the Lightning task, export."""
