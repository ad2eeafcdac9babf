"""Where objects are kept: a folder or a bucket, behind one small protocol."""
