"""The process that reads the topics into the audit store."""
