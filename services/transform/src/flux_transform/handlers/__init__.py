"""The life of one work item, one file per kind: gather facts, decide, act."""
