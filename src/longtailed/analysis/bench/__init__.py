"""What a training step costs, and where a figure comes from."""
