"""What a multi-scale network does with scale: policies of pictures, dilations of layers, exits; figures and a page."""
