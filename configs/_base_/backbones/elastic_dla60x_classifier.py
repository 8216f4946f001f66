# For classification at 224 px: the last stage only.
elastic_dla60x_classifier = dict(type="mmms_plugin.DLA", arch="60x", elastic="full", out_indices=(5,))
