"""Who may open the pages: users and their roles, passwords, sessions, the brake on guessing, and who did what.

Everything stands in the audit's database, so that several processes share it. Nothing here knows of HTTP.
"""
