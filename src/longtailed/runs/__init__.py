"""A run: data, a network and stages become a directory, and a model again."""
