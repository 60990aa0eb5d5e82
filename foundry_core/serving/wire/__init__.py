"""Messages of the serving protocols. NumPy, msgpack and protobuf: clients import this, too."""
