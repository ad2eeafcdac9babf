"""Functions on streams: Lambda's Kinesis event source, run on your own machine."""
