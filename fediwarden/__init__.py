"""The composition root: command line, settings, logging, the embedded Kafka, and `up`, which starts it all."""
