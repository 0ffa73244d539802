"""The dataset in formats that other tools expect; each carries how its numbers came about."""
