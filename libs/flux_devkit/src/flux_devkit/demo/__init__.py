"""`make demo`: the main job, end to end, on real servers, told so that a person enjoys it."""
