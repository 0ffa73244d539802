"""Whether a dataset folder can be trusted: its files, keys, physics and statistics, each held against a stated rule."""
