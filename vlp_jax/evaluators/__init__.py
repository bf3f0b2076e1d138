"""What a trained model is measured by, in the loop and alone."""
