"""Pure values both sides of the wire share: shards, hash keys, sequence numbers, records."""
