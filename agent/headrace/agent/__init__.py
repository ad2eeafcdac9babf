"""Files in, records out: tails log files into a stream, every line once."""
