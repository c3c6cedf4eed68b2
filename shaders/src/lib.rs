//! WGSL compute shaders and their parameter structs. Knows no GPU API.
//!
//! Empty until the GPU backend lands: the crate stands here so that the workspace's shape does
//! not change under it.
