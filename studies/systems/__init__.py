"""Things to be trained that several studies share."""
