"""Files of rows of every format, read within bounds."""
