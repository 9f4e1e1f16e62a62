"""The scanner: a Kafka consumer group that turns frames into scores, scores into a decision, and says so."""
