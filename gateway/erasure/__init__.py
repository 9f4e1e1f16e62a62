"""Erasure: frames leave Kafka's disks once every scanner group is done with them."""
