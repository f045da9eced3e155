"""What a real scanner and a real head add to the clean simulation, effect by effect."""
