"""The page about a dataset: figures and tables in one HTML file that needs nothing else."""
