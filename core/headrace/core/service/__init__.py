"""The operations, one file per group of the API. No HTTP in here."""
