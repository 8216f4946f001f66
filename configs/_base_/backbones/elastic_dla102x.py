# For detection; replaces the backbone of the host's config.
elastic_dla102x = dict(
    _delete_=True,
    type="mmms_plugin.DLA",
    arch="102x",
    elastic="full",
    frozen_stages=3,  # stem and levels 0 to 2
    norm_eval=True,
)
