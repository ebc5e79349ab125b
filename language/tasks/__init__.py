"""What models are for: translation, classification and others, from texts to answers."""
