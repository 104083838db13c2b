"""The transforms: one module per (content type, use case), each a pure function per object and a writer per table."""
