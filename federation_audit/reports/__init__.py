"""The abuse report to another instance's admins: what, when, which posts, hashes and rules; never an image."""
