"""The ten tasks of the paper (Sec. 3.1)."""

TASKS = (
    *("style_transfer", "color_texture", "object_addition", "object_removal", "rigid_replacement"),
    *("nonrigid_replacement", "camera_viewpoint", "local_attribute", "relighting", "background_replacement"),
)
