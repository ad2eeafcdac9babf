"""The engine for one machine: frame logs and SQLite under one data folder."""
