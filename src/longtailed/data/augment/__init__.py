"""Views: operations on batches of images."""
