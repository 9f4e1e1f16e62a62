"""Reviews: what people say of flagged images, one row and no pixel at a time, and what follows from it."""
