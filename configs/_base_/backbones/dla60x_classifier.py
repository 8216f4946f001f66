# For classification at 224 px: the last stage only.
dla60x_classifier = dict(type="mmms_plugin.DLA", arch="60x", elastic="none", out_indices=(5,))
