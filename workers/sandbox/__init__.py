"""Running a stranger's app: the container's spec, the Docker engine, images, disk limits."""
