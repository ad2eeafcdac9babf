"""Control state: streams, shards, leases, checkpoints as one deterministic state machine."""
