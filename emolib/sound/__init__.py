"""What a recording is: where it lies, what it sounds like, and the synthetic voices to test with."""
