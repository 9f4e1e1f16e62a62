"""What two services must agree on: messages, topics, codec, frame encryption and the broker client."""
