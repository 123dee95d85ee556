"""One run, from the rows to the report."""
