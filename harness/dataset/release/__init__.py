"""A release: dataset folders merged into one, sorted, documented and ready to publish."""
