"""The run store: one SQLite file a run, and everything that reads one."""
