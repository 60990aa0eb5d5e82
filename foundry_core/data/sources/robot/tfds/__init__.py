"""TFDS folders without TensorFlow: record framing, tf.train.Example, features.json."""
