"""Sinks: records of a stream become Parquet, every record in exactly one visible file."""
