"""Public measurements by others, brought into the tables of the dataset: one module a source."""
