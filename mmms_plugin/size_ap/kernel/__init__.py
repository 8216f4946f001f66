"""The arithmetic: detections matched with objects, AP of them, its bootstrap, and what errors cost."""
