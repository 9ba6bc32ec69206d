"""What runs behind the API: each controller watches a few kinds and brings the world closer to what they say."""
