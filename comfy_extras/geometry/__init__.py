"""What the nodes of meshes, volumes and splats compute. Arrays are numpy's."""
