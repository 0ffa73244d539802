"""The dataset: a folder of Parquet tables that is written run by run and survives any interruption."""
