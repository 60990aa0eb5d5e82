"""Messages of the serving protocols. NumPy, msgpack and protobuf: clients import this, too."""

MESSAGE_BYTES = 30 << 20
"""Of one message. What LBM Eval sends at most, and more than any camera set of the field."""
