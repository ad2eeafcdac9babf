"""The frame log: one stream's records on local disk. Synchronous; is given its files."""
