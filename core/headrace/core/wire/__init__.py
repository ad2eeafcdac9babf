"""The Kinesis wire protocol: JSON and CBOR over HTTP, AWS error bodies, SigV4."""
