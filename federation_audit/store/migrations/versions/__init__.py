"""One module for each change of the tables, in order; never changed once released."""
