"""What every service shows of itself in the same words: its Kafka connections as metrics, an image's way as spans."""
