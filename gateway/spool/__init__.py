"""What waits on disk while Kafka is away: sealed images, and the ledger's entries.

`segments.SegmentLog` is the log on disk, `slots` shares one folder between gateways, `parcels` turns messages into
bytes, `spool.Spool` is the way in for images.
"""
