"""The training stages: from configs and upstream folders to a trained model's folder."""
