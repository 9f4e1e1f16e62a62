"""A Kafka that asks who you are: certificates for its brokers, users for our processes, and what each may do."""
