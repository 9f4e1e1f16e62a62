"""Who sent what: origins joined with verdicts into evidence about instances, and what an admin can do with it."""
