"""What is read: objects, supports, episodes, data sets. No Lightning."""
