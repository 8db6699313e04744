"""What several tests need: the throw-away cluster, the hand-moved clock, fakes and receivers."""
