"""Models under test: where they come from, what their shapes are, loading them, prompts, and the steps of a request."""
