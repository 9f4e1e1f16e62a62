"""The word of a moderator: allowed or denied by bytes, by look or by scan, before every other judgement."""
