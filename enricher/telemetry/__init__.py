"""What the stage says about itself: logs, metrics and the pages that show them."""
