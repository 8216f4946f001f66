"""How a multi-scale network uses scale: policies of pictures, dilations of layers, exits; figures and a page."""
