"""Building blocks of the pages, to look at and to test."""
