"""What every preprocessor shares: reading sources, checking rows and images, splitting, writing shards."""
